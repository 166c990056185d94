"""Finds the scans of a path, a list or a table: the input of `u2net_tf.predict`."""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from collections.abc import Sequence

from u2net_tf.errors import InputError
from u2net_tf.files import absolute_path, what_is_at
from u2net_tf.inference import scan_lists, skipped_entries
from u2net_tf.inference.channel_names import case_of, stems_of, warn_of_channels
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import images
from u2net_tf.volumes.dicom_folder import is_dicom, is_dicom_folder
from u2net_tf.volumes.file_roles import require_one_role_each
from u2net_tf.volumes.scan_names import is_scan_name, scan_stem
from u2net_tf.wording import first_few, quantity


@dataclasses.dataclass(frozen=True)
class Scan:
    """One case to predict.

    Attributes:
      name: name of the case and of its output files.
      paths: one file, or one file or DICOM folder per modality.
    """

    name: str
    paths: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class FoundScans:
    """The scans of an input.

    Attributes:
      scans: the scans, sorted by name; their files may be unreadable.
      incomplete: name -> reason for cases that lack the file of a modality, and for
        entries named like a scan that are not files, such as broken links.
      others: scans of other parts, whose files must have different names.
    """

    scans: tuple[Scan, ...]
    incomplete: dict[str, InputError]
    others: tuple[Scan, ...] = ()

    @property
    def num_cases(self) -> int:
        """Number of cases, including incomplete ones."""
        return len(self.scans) + len(self.incomplete)

    @property
    def num_scans(self) -> int:
        """Number of scans of all parts."""
        return len(self.scans) + len(self.others)

    def part(self, part_id: int, num_parts: int) -> FoundScans:
        """Returns one of several parts, which together have each case once.

        Args:
          part_id: index of the part.
          num_parts: number of parts. Each has every `num_parts`-th case, by name.
        """
        names = {scan.name for scan in self.scans}.union(self.incomplete)
        chosen = set(sorted(names)[part_id::num_parts])
        return FoundScans(
            tuple(scan for scan in self.scans if scan.name in chosen),
            {name: why for name, why in self.incomplete.items() if name in chosen},
            tuple(scan for scan in self.scans if scan.name not in chosen),
        )


def require_input(inputs: Sequence[str], input_list: str | None) -> None:
    """Checks that either paths or a list is given; see `find_scans`.

    Raises:
      InputError: if there are both or neither.
    """
    # An empty flag is an empty string, which as a path would be the current folder.
    has_paths = any(inputs)
    if has_paths == (input_list is not None):
        raise InputError(
            "`input`",
            expected="a value here or for `input_list`",
            received="both" if has_paths else "neither",
        )


def find_scans(
    inputs: Sequence[str], domain: Domain, *, input_list: str | None = None
) -> FoundScans:
    """Finds the scans of an input.

    Entries of a folder that are not scans are listed in a warning.

    Args:
      inputs: one path: a file, a DICOM folder, or a folder of files or of DICOM
        folders; or several paths: one file or DICOM folder per modality of one
        case. A single DICOM file must have several frames. A string that is not an
        existing path is split at its commas.
      domain: defines the modalities. In a folder, 3-D files named `case_0000.nii.gz`,
        `case_0001.nii.gz`, … are one case if there is more than one modality; any
        other file is a case.
      input_list: instead of `inputs`, a file that lists the scans: see `scan_lists`.

    Returns:
      At least one scan.

    Raises:
      InputError: if a path cannot be used, or two scans have the same name.
    """
    require_input(inputs, input_list)
    if input_list is not None:
        found = _in_list(pathlib.Path(input_list), domain)
        where = f"`input_list`: {input_list}"
    else:
        found = _in_paths(_split(inputs), domain)
        where = f"`input`: {inputs[0]}"
    names = [scan.name for scan in found.scans]
    for scan in found.scans:
        if names.count(scan.name) > 1:
            same = [s.paths[0] for s in found.scans if s.name == scan.name]
            raise InputError(
                where,
                expected="one scan per name",
                received=f"several named {scan.name!r}: {first_few(same)}",
                hint="A table in `input_list` can give them names",
            )
    if not found.scans and not found.incomplete:
        raise InputError(where, expected="a scan", received="none")
    scans = sorted(found.scans, key=lambda scan: scan.name)
    return FoundScans(tuple(scans), found.incomplete)


def _split(inputs: Sequence[str]) -> list[pathlib.Path]:
    """Returns the paths in strings, each of which may contain several."""
    texts: list[str] = []
    for text in inputs:
        if os.path.exists(text) or "," not in text:
            texts.append(text)
        else:
            # Text that cannot be split is reported unchanged.
            try:
                texts += next(csv.reader([text]))
            except csv.Error:
                texts.append(text)
    paths = [pathlib.Path(text) for text in texts if text]
    if len(paths) < len(texts):
        raise InputError("`input`", expected="paths", received="an empty string")
    for path in paths:
        if not os.path.exists(path):
            raise InputError(
                f"`input`: {path}",
                expected="a file or folder",
                received="no such file or folder",
                hint="For paths that contain commas, repeat `input` for each path"
                if len(paths) > len(inputs)
                else "",
            )
    return paths


def _in_list(path: pathlib.Path, domain: Domain) -> FoundScans:
    if scan_lists.is_table(path):
        rows = scan_lists.read_table(path, domain.modalities)
        return FoundScans(tuple(Scan(case, paths) for case, paths in rows), {})
    scans: list[Scan] = []
    incomplete: dict[str, InputError] = {}
    for entry in scan_lists.read_paths(path):
        if os.path.isdir(entry):
            found = _in_paths([entry], domain)
            scans += found.scans
            incomplete |= found.incomplete
        else:
            # A path that does not exist is reported later, like any unreadable scan.
            scans.append(Scan(_name(entry), (entry,)))
    return FoundScans(tuple(scans), incomplete)


def _in_paths(paths: Sequence[pathlib.Path], domain: Domain) -> FoundScans:
    path = paths[0]
    if len(paths) > 1:
        scan = _one_per_modality(paths, domain.num_modalities)
    elif path.is_file() or is_dicom_folder(path):
        scan = Scan(_name(path), (path,))
    elif path.is_dir():
        return _in_folder(path, domain.num_modalities)
    else:
        raise InputError(
            f"`input`: {path}",
            expected="a file or folder",
            received=what_is_at(path),
        )
    return FoundScans((scan,), {})


def _name(path: pathlib.Path) -> str:
    """Returns the name of the scan in a file or DICOM folder."""
    if os.path.isdir(path):
        return absolute_path(path).name
    if is_dicom(path):
        return path.stem if path.suffix.lower() == ".dcm" else path.name
    return scan_stem(path)


def _one_per_modality(paths: Sequence[pathlib.Path], num_modalities: int) -> Scan:
    if len(paths) != num_modalities:
        raise InputError(
            "`input`",
            expected=f"{quantity(num_modalities, 'path')}, one per modality",
            received=quantity(len(paths), "path"),
        )
    _require_different("`input`", paths)
    name = _name(paths[0])
    return Scan(case_of(name) or name, tuple(paths))


def _require_different(where: object, paths: Sequence[pathlib.Path]) -> None:
    roles = ((path, f"modality {number}") for number, path in enumerate(paths))
    require_one_role_each(where, roles)


def _in_folder(folder: pathlib.Path, num_modalities: int) -> FoundScans:
    files, series, others = [], [], []
    incomplete: dict[str, InputError] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            others.append(path.name)
        elif path.is_file() and is_scan_name(path):
            files.append(path)
        elif is_dicom_folder(path):
            series.append(path)
        elif is_scan_name(path):
            error = InputError(path, expected="a scan", received=what_is_at(path))
            name = scan_stem(path)
            # With several modalities, the entire case is incomplete.
            case = case_of(name) if num_modalities > 1 else None
            incomplete[case or name] = error
        else:
            others.append(path.name + "/" * path.is_dir())
    below = skipped_entries.find_scans_below(folder, others)
    if not files and not series and not incomplete:
        raise skipped_entries.no_scan_error(folder, others, below)
    skipped_entries.warn_of_skipped(folder, others, below)
    scans = [Scan(path.name, (path,)) for path in series]
    singles, groups = _group_modalities(files, num_modalities)
    if num_modalities == 1:
        warn_of_channels(folder, files)
    scans += [Scan(scan_stem(path), (path,)) for path in singles]
    for case, paths in groups.items():
        if case in incomplete:
            continue
        expected = stems_of(case, num_modalities)
        if [scan_stem(path) for path in paths] == expected:
            try:
                _require_different(folder, paths)
                scans.append(Scan(case, tuple(paths)))
            except InputError as error:
                incomplete[case] = error
        else:
            incomplete[case] = InputError(
                folder,
                expected=f"the files {first_few(expected)}, one per modality",
                received=first_few([path.name for path in paths]),
            )
    return FoundScans(tuple(scans), incomplete)


def _group_modalities(
    files: Sequence[pathlib.Path], num_modalities: int
) -> tuple[list[pathlib.Path], dict[str, list[pathlib.Path]]]:
    """Returns the files that are cases, and case -> the files of its modalities.

    A number may also be that of a patient, whose file is then 4-D.
    """
    singles = []
    groups: dict[str, list[pathlib.Path]] = {}
    num_axes: dict[pathlib.Path, int] = {}
    for path in files:
        case = case_of(scan_stem(path))
        if case and num_modalities > 1:
            num_axes[path] = _num_axes(path)
            if num_axes[path] < 4:
                groups.setdefault(case, []).append(path)
                continue
        singles.append(path)
    for case, paths in list(groups.items()):
        if not any(num_axes[path] for path in paths):
            # None of them can be read; each is reported as a separate scan.
            singles += groups.pop(case)
    return singles, groups


def _num_axes(path: pathlib.Path) -> int:
    """Returns 3 or 4 as in the header; 0 if the header cannot be used."""
    try:
        return len(images.load_header(path).shape)
    except InputError:
        return 0
