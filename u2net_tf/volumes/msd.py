"""A folder in the layout of the Medical Segmentation Decathlon (MSD) or of nnU-Net."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.file_format import load_json
from u2net_tf.plan.domains import Domain, require_folder_name
from u2net_tf.volumes import dataset_json
from u2net_tf.volumes.dataset_json import Row
from u2net_tf.volumes.file_roles import require_one_role_each
from u2net_tf.volumes.scan_names import channel_path, distinct_names, is_scan_name
from u2net_tf.wording import first_few, quantity


@dataclasses.dataclass(frozen=True)
class Case:
    """One patient: where the image and the label map lie.

    Attributes:
      name: file name without folder and suffix, or as `scan_names.distinct_names`.
      image_paths: one file, 4-D when there are several modalities, or one per modality.
      label_path: the label map.
    """

    name: str
    image_paths: tuple[pathlib.Path, ...]
    label_path: pathlib.Path

    @property
    def image_path(self) -> pathlib.Path:
        """The image, or its first file."""
        return self.image_paths[0]

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """All files: the image's, and the label map last."""
        return (*self.image_paths, self.label_path)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What `dataset.json` says.

    Attributes:
      name: name of the folder; the domain's name.
      folder: the folder.
      modalities: names in the order of the channels.
      labels: raw value -> name, in ascending order, with 0.
      cases: training cases, sorted by name.
      duplicates: names of cases whose files `dataset.json` lists more than once.
      notes: what in `dataset.json` was passed over or contradicts the rest, in words.
    """

    name: str
    folder: pathlib.Path
    modalities: tuple[str, ...]
    labels: dict[int, str]
    cases: tuple[Case, ...]
    duplicates: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def case(self, name: str) -> Case:
        """The case of this name.

        Raises:
          InputError: if the dataset does not list it.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise InputError(
            f"{self.folder / 'dataset.json'}: 'training'",
            expected=f"the case {name!r}",
            received=f"{len(self.cases)} cases without it",
        )


def find_datasets(raw_dir: str | os.PathLike) -> list[pathlib.Path]:
    """Folders below `raw_dir` that hold a `dataset.json`; `raw_dir` itself if it does.

    Raises:
      InputError: if there is none.
    """
    raw_dir = pathlib.Path(raw_dir)
    if not raw_dir.is_dir():
        raise InputError(raw_dir, expected="a folder", received="no such folder")
    if (raw_dir / "dataset.json").is_file():
        return [raw_dir]
    folders = sorted(
        path.parent
        for path in raw_dir.glob("*/dataset.json")
        if not path.parent.name.startswith(".")
    )
    if not folders:
        raise InputError(
            raw_dir,
            expected="folders with a dataset.json each (layout of the Medical "
            "Segmentation Decathlon)",
            received="none",
        )
    return folders


def read_dataset(folder: str | os.PathLike) -> Dataset:
    """Reads `dataset.json`. Whether its files exist is not looked at here.

    Hidden files (`._*`, left by some archivers) are passed over. Paths may start with
    `./` or `/`, may be separated by backslashes, and are relative to the folder either
    way; `.nii` stands for `.nii.gz` where only that exists, as in the published Task05,
    and `case.nii.gz` for `case_0000.nii.gz`, `case_0001.nii.gz`, …, one per modality,
    where only those do, as in nnU-Net 1. Where `dataset.json` lists no cases and names
    a file ending, as in nnU-Net 2, the cases are those of `labelsTr`.

    Raises:
      InputError: names `dataset.json`, what was expected and what was received.
    """
    # Not `resolve`: a linked folder keeps the name that the user gave it.
    folder = files.absolute_path(folder)
    path = folder / "dataset.json"
    if not path.is_file():
        raise InputError(path, expected="a file", received=files.what_is_at(path))
    try:
        require_folder_name(folder.name)
    except InputError as error:
        raise error.within(path) from None
    content = load_json(path)
    if not isinstance(content, dict):
        raise InputError(
            path, expected="a JSON object", received=type(content).__name__
        )
    modalities = dataset_json.read_modalities(path, content)
    labels = dataset_json.read_labels(path, content)
    rows = dataset_json.read_rows(path, content)
    if rows is None:
        ending = dataset_json.read_file_ending(path, content)
        rows = _rows_of_folder(path, ending)
    hidden = [row.images[0] for row in rows if _is_hidden(row.images[0])]
    found = [
        _locate_files(folder, row, len(modalities))
        for row in rows
        if not _is_hidden(row.images[0])
    ]
    cases, duplicates = _name_cases(path, found)
    require_one_role_each(f"{path}: 'training'", _roles(cases))
    notes = []
    if hidden:
        count = quantity(len(hidden), "hidden file")
        notes.append(f"passed over {count}: {first_few(hidden)}")
    if unused := dataset_json.unused_fields(content):
        notes.append(f"fields of 'training' that are not used: {first_few(unused)}")
    if difference := dataset_json.count_difference(content, len(cases)):
        notes.append(difference)
    return Dataset(
        name=folder.name,
        folder=folder,
        modalities=modalities,
        labels=labels,
        cases=cases,
        duplicates=duplicates,
        notes=tuple(notes),
    )


def unlisted_files(dataset: Dataset) -> list[pathlib.Path]:
    """Volumes beside those of the cases that no case refers to, sorted.

    Looked at are `imagesTr`, `labelsTr` and the folders of the cases' files.
    """
    listed = {path for case in dataset.cases for path in case.paths}
    folders = {path.parent for path in listed}
    folders |= {dataset.folder / name for name in ("imagesTr", "labelsTr")}
    return sorted(
        path
        for folder in folders
        if folder.is_dir()
        for path in _volumes(folder)
        if path not in listed
    )


def read_domain(domain: Domain, raw_dir: str | os.PathLike | None) -> Dataset:
    """Reads the `dataset.json` of a domain of a plan.

    Args:
      domain: says where the scans were when the plan was made.
      raw_dir: folder with a folder per domain, if they have moved since; None if not.

    Raises:
      InputError: see `read_dataset`.
    """
    if raw_dir is None:
        return read_dataset(domain.raw_dir)
    return read_dataset(pathlib.Path(raw_dir) / domain.name)


def _volumes(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in folder.iterdir():
        if is_scan_name(path) and not _is_hidden(path.name) and path.is_file():
            yield path


def _rows_of_folder(path: pathlib.Path, ending: str) -> list[Row]:
    """Image and label map of each case of nnU-Net 2, as `dataset.json` could list them.

    A label map has the name of its case, which may end in a number, too.
    """
    folder = path.parent / "labelsTr"
    labels = _volumes(folder) if folder.is_dir() else []
    names = sorted(label.name for label in labels if label.name.endswith(ending))
    if not names:
        raise InputError(
            folder, expected=f"label maps named CASE{ending}", received="none"
        )
    return [Row((f"imagesTr/{name}",), f"labelsTr/{name}") for name in names]


@dataclasses.dataclass(frozen=True)
class _Files:
    """The files of a row; `named` has the name of its case."""

    named: pathlib.Path
    images: tuple[pathlib.Path, ...]
    label: pathlib.Path


def _name_cases(
    path: pathlib.Path, found: list[_Files]
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """The cases of these files, sorted by name, and the names of those listed twice."""
    if not found:
        raise InputError(
            f"{path}: 'training'", expected="cases", received="hidden files only"
        )
    counts = collections.Counter(found)
    images = [files.images[0] for files in counts]
    if len(set(images)) < len(images):
        twice = sorted({str(image) for image in images if images.count(image) > 1})
        raise InputError(
            f"{path}: 'training'",
            expected="one label map for each image",
            received=f"several for {first_few(twice)}",
        )
    try:
        places = [files.named for files in counts]
        names = distinct_names(places, path.parent, f"{path}: 'training'")
    except InputError as error:
        raise error if str(path) in error.where else error.within(path) from None
    named = sorted(zip(names, counts, strict=True), key=lambda item: item[0])
    cases = tuple(Case(name, files.images, files.label) for name, files in named)
    return cases, tuple(name for name, files in named if counts[files] > 1)


def _roles(cases: Sequence[Case]) -> Iterator[tuple[pathlib.Path, str]]:
    for case in cases:
        for image in case.image_paths:
            yield image, f"an image of {case.name!r}"
        yield case.label_path, f"the label map of {case.name!r}"


def _is_hidden(text: str) -> bool:
    return pathlib.PureWindowsPath(text).name.startswith(".")


def _locate_files(folder: pathlib.Path, row: Row, num_modalities: int) -> _Files:
    """The files that a row names; where only those exist, one image per modality."""
    images = tuple(_locate(folder, text) for text in row.images)
    label = _locate(folder, row.label)
    named = images[0]
    if row.name:
        return _Files(folder / f"{row.name}.nii.gz", images, label)
    if len(images) == 1 and not named.exists() and is_scan_name(named):
        for candidate in (named, *_other_endings(named)):
            if channel_path(candidate, 0).is_file():
                channels = range(num_modalities)
                images = tuple(channel_path(candidate, channel) for channel in channels)
                break
    return _Files(named, images, label)


def _locate(folder: pathlib.Path, text: str) -> pathlib.Path:
    if "\\" in text and not (folder / text).exists():
        # Written on Windows.
        text = text.replace("\\", "/")
    path = files.absolute_path(folder / text.lstrip("/"))
    if not path.exists():
        for other in _other_endings(path):
            if other.is_file():
                return other
    return path


def _other_endings(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The same name with `.nii` instead of `.nii.gz`, or the reverse."""
    if path.suffix == ".nii":
        yield path.with_name(f"{path.name}.gz")
    elif path.suffix == ".gz" and path.with_suffix("").suffix == ".nii":
        yield path.with_suffix("")
