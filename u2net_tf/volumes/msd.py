"""A folder in the layout of the Medical Segmentation Decathlon (MSD)."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from typing import Any

from u2net_tf.errors import InputError
from u2net_tf.file_format import load_json
from u2net_tf.plan.domains import Domain

NIFTI_SUFFIXES = (".nii.gz", ".nii")


@dataclasses.dataclass(frozen=True)
class Case:
    """One patient: where the image and the label map lie.

    Attributes:
      name: file name without folder and suffix.
      image_path: NIfTI file, 4-D when there are several modalities.
      label_path: NIfTI file.
    """

    name: str
    image_path: pathlib.Path
    label_path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What `dataset.json` says.

    Attributes:
      name: name of the folder; the domain's name.
      folder: the folder.
      modalities: names in the order of the channels.
      labels: raw value -> name, in ascending order, with 0.
      cases: training cases, sorted by name.
      duplicates: names that `dataset.json` lists more than once.
    """

    name: str
    folder: pathlib.Path
    modalities: tuple[str, ...]
    labels: dict[int, str]
    cases: tuple[Case, ...]
    duplicates: tuple[str, ...]

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


def is_nifti_name(path: str | os.PathLike) -> bool:
    """Whether a name ends in `.nii` or `.nii.gz`, in capitals or not."""
    return pathlib.PurePath(path).name.lower().endswith(NIFTI_SUFFIXES)


def nifti_stem(path: str | os.PathLike) -> str:
    """File name without folder and `.nii` or `.nii.gz`, in capitals or not.

    Raises:
      InputError: if the name ends in neither.
    """
    name = pathlib.PurePath(path).name
    for suffix in NIFTI_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    raise InputError(path, expected="a name ending in .nii.gz or .nii", received=name)


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
    """Reads `dataset.json`. Whether the files exist is not looked at here.

    Hidden files (`._*`, left by some archivers) are passed over. Paths may start with
    `./` or `/` and are relative to the folder either way; `.nii` stands for `.nii.gz`
    where only that exists, as in the published Task05.

    Raises:
      InputError: names `dataset.json`, what was expected and what was received.
    """
    # Not `resolve`: a linked folder keeps the name that the user gave it.
    folder = pathlib.Path(os.path.abspath(folder))
    path = folder / "dataset.json"
    if not path.is_file():
        raise InputError(path, expected="a file", received="no such file")
    content = load_json(path)
    if not isinstance(content, dict):
        raise InputError(
            path, expected="a JSON object", received=type(content).__name__
        )
    modalities = _read_numbered(path, content, "modality")
    labels = _read_numbered(path, content, "labels")
    if list(modalities) != list(range(len(modalities))):
        raise InputError(
            f"{path}: 'modality'", expected="keys 0, 1, …", received=list(modalities)
        )
    if 0 not in labels or len(labels) < 2:
        raise InputError(
            f"{path}: 'labels'",
            expected="0 (background) and at least one other value",
            received=labels,
        )
    cases = _read_cases(path, content)
    counts = collections.Counter(case.name for case in cases)
    unique = {case.name: case for case in cases}
    return Dataset(
        name=folder.name,
        folder=folder,
        modalities=tuple(modalities.values()),
        labels=labels,
        cases=tuple(unique[name] for name in sorted(unique)),
        duplicates=tuple(sorted(name for name, n in counts.items() if n > 1)),
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


def _read_numbered(path: pathlib.Path, content: dict, field: str) -> dict[int, str]:
    value = content.get(field)
    where, expected = f"{path}: {field!r}", 'an object such as {"0": "name"}'
    if not isinstance(value, dict) or not value:
        raise InputError(where, expected=expected, received=repr(value))
    try:
        items = {int(key): str(name) for key, name in value.items()}
    except ValueError as error:
        raise InputError(
            where, expected=f"{expected} with whole numbers", received=error
        ) from None
    return dict(sorted(items.items()))


def _read_cases(path: pathlib.Path, content: dict) -> list[Case]:
    rows = content.get("training")
    where = f"{path}: 'training'"
    row_expected = '{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}'
    if not isinstance(rows, list):
        raise InputError(
            where, expected=f"a list of {row_expected}", received=repr(rows)
        )
    cases = []
    for row in rows:
        if not isinstance(row, dict) or not _is_text(row, "image", "label"):
            raise InputError(
                where, expected=f"a list of {row_expected}", received=repr(row)
            )
        if pathlib.PurePath(row["image"]).name.startswith("."):
            continue
        image_path = _locate(path.parent, row["image"])
        label_path = _locate(path.parent, row["label"])
        cases.append(Case(nifti_stem(image_path), image_path, label_path))
    if not cases:
        raise InputError(
            where, expected=f"a list of {row_expected}", received="an empty list"
        )
    return cases


def _is_text(row: dict, *fields: str) -> bool:
    return all(isinstance(row.get(field), str) for field in fields)


def _locate(folder: pathlib.Path, text: Any) -> pathlib.Path:
    path = folder / text.lstrip("/")
    path = pathlib.Path(os.path.normpath(path))
    if not path.exists():
        for other in (pathlib.Path(f"{path}.gz"), path.with_suffix("")):
            if other.suffix in (".gz", ".nii") and other.is_file():
                return other
    return path
