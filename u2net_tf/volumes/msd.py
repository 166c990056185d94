"""Dataset folders in the layout of the Medical Segmentation Decathlon or nnU-Net."""

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
from u2net_tf.volumes import dataset_cases, dataset_json
from u2net_tf.volumes.dataset_cases import Row
from u2net_tf.volumes.file_roles import require_one_role_each
from u2net_tf.volumes.scan_names import (
    channel_path,
    distinct_names,
    is_scan_name,
    require_distinct_file_names,
    require_utf8,
)
from u2net_tf.wording import first_few, quantity


@dataclasses.dataclass(frozen=True)
class Case:
    """The files of one patient.

    Attributes:
      name: file name without folder and suffix, or as in `scan_names.distinct_names`.
      image_paths: one file, 4-D if there are several modalities, or one per modality.
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
    """The content of `dataset.json`.

    Attributes:
      name: name of the folder; the domain's name.
      folder: folder of `dataset.json`.
      modalities: names in the order of the channels.
      labels: raw value -> name, in ascending order, including 0.
      cases: training cases, sorted by name.
      duplicates: names of cases whose files `dataset.json` lists more than once.
      ignore_label: raw value of voxels without annotation; None if there is none.
      regions: name -> raw values of a union of classes.
      notes: descriptions of what in `dataset.json` was skipped or is inconsistent.
    """

    name: str
    folder: pathlib.Path
    modalities: tuple[str, ...]
    labels: dict[int, str]
    cases: tuple[Case, ...]
    duplicates: tuple[str, ...]
    ignore_label: int | None = None
    regions: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def case(self, name: str) -> Case:
        """Returns the case of this name.

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
    """Returns the folders in `raw_dir`, or `raw_dir` itself, with a `dataset.json`.

    Raises:
      InputError: if there are none.
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
            expected="folders with a dataset.json in each (layout of the Medical "
            "Segmentation Decathlon or of nnU-Net)",
            received="none",
        )
    return folders


def read_dataset(folder: str | os.PathLike) -> Dataset:
    """Reads `dataset.json`, without checking that its files exist.

    Hidden files (`._*`, left by some archivers) are skipped. Paths may start with `./`
    or `/`, may be separated by backslashes, and are always relative to the folder.
    `x.nii` refers to `x.nii.gz` if only that exists, as in the published Task05, and
    `x.nii.gz` to `x_0000.nii.gz`, `x_0001.nii.gz`, …, one per modality, if only those
    exist, as in nnU-Net 1. If `dataset.json` has a `file_ending` but lists no cases, as
    in nnU-Net 2, the cases are those in `labelsTr`.

    Raises:
      InputError: if `dataset.json` is missing or invalid, or a path is not UTF-8.
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
    rows = dataset_cases.read_rows(path, content)
    if rows is None:
        ending = dataset_cases.read_file_ending(path, content)
        rows = _rows_of_folder(path, ending)
    hidden = [row.images[0] for row in rows if _is_hidden(row.images[0])]
    found = [
        _locate_files(folder, row, len(modalities))
        for row in rows
        if not _is_hidden(row.images[0])
    ]
    cases, duplicates = _name_cases(path, found)
    require_utf8([path, *(file for case in cases for file in case.paths)], path)
    require_one_role_each(f"{path}: 'training'", _roles(cases))
    notes = dataset_json.unused_fields(content)
    if hidden:
        count = quantity(len(hidden), "hidden file")
        notes.append(f"skipped {count}: {first_few(hidden)}")
    if unused := dataset_cases.unused_fields(content):
        notes.append(f"unused fields of 'training': {first_few(unused)}")
    if difference := dataset_cases.count_difference(content, len(cases)):
        notes.append(difference)
    return Dataset(
        name=folder.name,
        folder=folder,
        modalities=modalities,
        labels=labels.names,
        ignore_label=labels.ignore_label,
        regions=labels.regions,
        cases=cases,
        duplicates=duplicates,
        notes=tuple(notes),
    )


def unlisted_files(dataset: Dataset) -> list[pathlib.Path]:
    """Returns the volumes that no case refers to, sorted.

    Searches `imagesTr`, `labelsTr` and the folders of the cases' files.
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
      domain: states the folder of the scans when the plan was made.
      raw_dir: parent of the domains' folders, if they have moved since; else None.

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
    """Returns rows for the cases of nnU-Net 2, which `dataset.json` does not list.

    A label map has the name of its case, which may itself end in a number.
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
    """The files of a row; `name_source` determines the name of its case."""

    name_source: pathlib.Path
    images: tuple[pathlib.Path, ...]
    label: pathlib.Path


def _name_cases(
    path: pathlib.Path, found: list[_Files]
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Returns the cases, sorted by name, and the names of repeated ones."""
    if not found:
        raise InputError(
            f"{path}: 'training'", expected="cases", received="hidden files only"
        )
    counts = collections.Counter(found)
    images = [files.images[0] for files in counts]
    if len(set(images)) < len(images):
        repeated = sorted({str(image) for image in images if images.count(image) > 1})
        raise InputError(
            f"{path}: 'training'",
            expected="one label map for each image",
            received=f"several for {first_few(repeated)}",
        )
    try:
        sources = [files.name_source for files in counts]
        names = distinct_names(sources, path.parent, f"{path}: 'training'")
    except InputError as error:
        raise error if str(path) in error.where else error.within(path) from None
    require_distinct_file_names(names, f"{path}: 'training'")
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
    """Locates the files of a row; one image per modality if only those exist."""
    images = tuple(_locate(folder, text) for text in row.images)
    label = _locate(folder, row.label)
    first = images[0]
    if row.name:
        return _Files(folder / f"{row.name}.nii.gz", images, label)
    if len(images) == 1 and not first.exists() and is_scan_name(first):
        for candidate in (first, *_other_suffixes(first)):
            if channel_path(candidate, 0).is_file():
                channels = range(num_modalities)
                images = tuple(channel_path(candidate, channel) for channel in channels)
                break
    return _Files(first, images, label)


def _locate(folder: pathlib.Path, text: str) -> pathlib.Path:
    if "\\" in text and not (folder / text).exists():
        # Written on Windows.
        text = text.replace("\\", "/")
    path = files.absolute_path(folder / text.lstrip("/"))
    if not path.exists():
        for other in _other_suffixes(path):
            if other.is_file():
                return other
    return path


def _other_suffixes(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Returns the name with `.nii` instead of `.nii.gz`, or the reverse."""
    if path.suffix == ".nii":
        yield path.with_name(f"{path.name}.gz")
    elif path.suffix == ".gz" and path.with_suffix("").suffix == ".nii":
        yield path.with_suffix("")
