"""Which scans a path stands for: the input of `u2net_tf.predict`."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from u2net_tf.errors import InputError
from u2net_tf.volumes.dicom_folder import is_dicom_folder
from u2net_tf.volumes.msd import NIFTI_SUFFIXES, nifti_stem
from u2net_tf.wording import quantity

# One file per modality: case_0000.nii.gz, case_0001.nii.gz, …
_NUMBERED = re.compile(r"^(?P<case>.+)_(?P<number>\d{4})$")


@dataclasses.dataclass(frozen=True)
class Scan:
    """One case to predict.

    Attributes:
      name: names the output.
      paths: one NIfTI file, or one NIfTI file or DICOM folder per modality.
    """

    name: str
    paths: tuple[pathlib.Path, ...]


def find_scans(inputs: Sequence[str], num_modalities: int) -> list[Scan]:
    """Finds the scans that an input stands for.

    Args:
      inputs: one path: a NIfTI file, a DICOM folder, or a folder of NIfTI files or of
        DICOM folders; or several paths: one file or DICOM folder per modality of one
        case.
      num_modalities: of the domain. In a folder, files named `case_0000.nii.gz`,
        `case_0001.nii.gz`, … are one case when there is more than one modality; any
        other file is a case.

    Returns:
      At least one scan, sorted by name.

    Raises:
      InputError: names the path, what was expected and what was received.
    """
    paths = [pathlib.Path(text) for text in inputs]
    for path in paths:
        if not path.exists():
            raise InputError(
                f"`input`: {path}",
                expected="a file or folder",
                received="no such file or folder",
            )
    if len(paths) > 1:
        return [_one_per_modality(paths, num_modalities)]
    (path,) = paths
    if path.is_file():
        return [Scan(nifti_stem(path), (path,))]
    if is_dicom_folder(path):
        return [Scan(path.resolve().name, (path,))]
    return _in_folder(path, num_modalities)


def _one_per_modality(paths: list[pathlib.Path], num_modalities: int) -> Scan:
    if len(paths) != num_modalities:
        raise InputError(
            "`input`",
            expected=f"{quantity(num_modalities, 'path')}, one per modality",
            received=quantity(len(paths), "path"),
        )
    first = paths[0]
    name = first.resolve().name if first.is_dir() else nifti_stem(first)
    match = _NUMBERED.match(name)
    return Scan(match["case"] if match else name, tuple(paths))


def _in_folder(folder: pathlib.Path, num_modalities: int) -> list[Scan]:
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    files = [p for p in entries if p.is_file() and p.name.endswith(NIFTI_SUFFIXES)]
    series = [p for p in entries if is_dicom_folder(p)]
    scans = [Scan(path.name, (path,)) for path in series]
    groups: dict[str, list[pathlib.Path]] = {}
    for path in files:
        match = _NUMBERED.match(nifti_stem(path))
        if match and num_modalities > 1:
            groups.setdefault(match["case"], []).append(path)
        else:
            scans.append(Scan(nifti_stem(path), (path,)))
    for case, paths in groups.items():
        expected = [f"{case}_{number:04d}" for number in range(num_modalities)]
        if [nifti_stem(path) for path in paths] != expected:
            raise InputError(
                f"`input`: {folder}",
                expected=f"the files {', '.join(expected)}, one per modality",
                received=", ".join(path.name for path in paths),
            )
        scans.append(Scan(case, tuple(paths)))
    if not scans:
        raise InputError(
            f"`input`: {folder}",
            expected="NIfTI files (.nii.gz, .nii) or DICOM folders",
            received="none",
        )
    names = [scan.name for scan in scans]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"`input`: {folder}",
                expected="one scan per name",
                received=f"several named {name!r}",
            )
    return sorted(scans, key=lambda scan: scan.name)
