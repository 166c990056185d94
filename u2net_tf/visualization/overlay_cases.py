"""Finds the images, references and predictions of the cases in an overlay figure."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Plan
from u2net_tf.visualization.label_names import LabelNames, find_label_names
from u2net_tf.volumes import msd
from u2net_tf.volumes.scan_names import (
    SCAN_SUFFIXES,
    is_scan_name,
    label_map_stem,
    scan_stem,
)
from u2net_tf.wording import first_few


@dataclasses.dataclass(frozen=True)
class OverlayCase:
    """The files of one row; without a reference, its panel shows the image only."""

    name: str
    image_path: pathlib.Path
    reference_path: pathlib.Path | None
    prediction_path: pathlib.Path
    label_names: LabelNames = LabelNames()


def find_cases(
    images: Sequence[str],
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    max_cases: int,
    plan: Plan | None = None,
) -> list[OverlayCase]:
    """Finds the files of each case.

    Cases that a `dataset.json` next to a folder of images lists have the names and
    files that `msd.read_dataset` gives them; others are named like their files.

    Args:
      images: files or folders.
      references: one file or folder per image, or none at all; "" for an image
        without one.
      predictions: one file or folder per image.
      max_cases: maximum number of cases from each folder, in the order of their names.
      plan: see `find_label_names`.

    Returns:
      The cases, in the order of the arguments.

    Raises:
      InputError: if the numbers of files differ, a folder has no cases, or the plan
        does not have the domain.
      FileNotFoundError: if a file or folder does not exist.
    """
    references = references or [""] * len(images)
    if not len(images) == len(references) == len(predictions):
        raise InputError(
            "`image`, `reference`, `prediction`",
            expected="the same number of each, or no `reference`",
            received=f"{len(images)}, {len(references)}, {len(predictions)}",
        )
    return [
        case
        for paths in zip(images, references, predictions, strict=True)
        for case in _cases_of(*paths, max_cases, plan)
    ]


def _cases_of(
    image: str, reference: str, prediction: str, max_cases: int, plan: Plan | None
) -> list[OverlayCase]:
    """Returns the first cases of an image file or folder, in the order of names."""
    cases = _listed_cases(pathlib.Path(image))
    image_files = _list_files(
        "image", image, {case.name: case.image_paths for case in cases}
    )
    prediction_files = _list_files("prediction", prediction)
    _add_names_of_cases(prediction_files, image_files, pathlib.Path(image))
    reference_files = {}
    if reference:
        reference_files = _list_files(
            "reference", reference, {case.name: (case.label_path,) for case in cases}
        )
        _add_names_of_cases(reference_files, image_files, pathlib.Path(image))
    if pathlib.Path(image).is_file() and pathlib.Path(prediction).is_file():
        # Single files belong together regardless of their names.
        name = next(iter(image_files))
        prediction_files = {name: pathlib.Path(prediction)}
        if reference and pathlib.Path(reference).is_file():
            reference_files = {name: pathlib.Path(reference)}
    names = [name for name in image_files if name in prediction_files]
    if not names:
        raise InputError(
            "`prediction`",
            expected=f"files named as in {image}",
            received=f"{prediction} with {first_few(sorted(prediction_files))}",
        )
    names = names[:max_cases]
    for name in names:
        if reference and name not in reference_files:
            raise FileNotFoundError(f"`reference`: no {name} in {reference}")
    label_names = find_label_names(pathlib.Path(image), pathlib.Path(prediction), plan)
    return [
        OverlayCase(
            name=name,
            image_path=image_files[name],
            reference_path=reference_files.get(name),
            prediction_path=prediction_files[name],
            label_names=label_names,
        )
        for name in names
    ]


def _add_names_of_cases(
    label_maps: dict[str, pathlib.Path],
    image_files: Mapping[str, pathlib.Path],
    image: pathlib.Path,
) -> None:
    """Adds the case names of label maps that are named like the file of an image.

    With a single modality, `predict` names the label map of `case_0000.nii.gz` like
    this, while `evaluate` names it `case.nii.gz`.
    """
    folder = files.absolute_path(image if image.is_dir() else image.parent)
    for name, file in image_files.items():
        stem = scan_stem(file)
        # Files in folders of patients may all have the same name.
        is_unique = files.absolute_path(file).parent == folder
        if is_unique and stem in label_maps:
            label_maps.setdefault(name, label_maps[stem])


def _listed_cases(image: pathlib.Path) -> tuple[msd.Case, ...]:
    """Returns the cases in `dataset.json` next to a folder of images.

    Without a valid one there are none, and cases are named like their files.
    """
    folder = files.absolute_path(image if image.is_dir() else image.parent).parent
    try:
        return msd.read_dataset(folder).cases
    except (InputError, OSError):
        return ()


def _list_files(
    flag: str,
    file_or_folder: str,
    listed: Mapping[str, Sequence[pathlib.Path]] | None = None,
) -> dict[str, pathlib.Path]:
    """Returns name of the case -> volume, in order, without hidden files.

    A label map may have a different format from its image, also `.seg.nrrd`.

    Args:
      flag: name of the setting, for error messages.
      file_or_folder: a volume or a folder of volumes.
      listed: name -> files of the cases that `dataset.json` lists. The first file is
        used if it exists in the folder. Other volumes are named like their files.
    """
    path = pathlib.Path(file_or_folder)
    if not path.exists():
        raise FileNotFoundError(f"`{flag}`: no such file or folder: {path}")
    place = files.absolute_path(path)
    found = {
        name: first
        for name, (first, *_) in (listed or {}).items()
        if first.is_relative_to(place) and first.is_file()
    }
    used = set(found.values())
    stem_of = scan_stem if flag == "image" else label_map_stem
    if path.is_dir():
        # Further modalities are no cases; a single one may be drawn by itself.
        used.update(file for volumes in (listed or {}).values() for file in volumes)
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        is_hidden = file.name.startswith(".")
        if is_hidden or not is_scan_name(file) or files.absolute_path(file) in used:
            continue
        other = found.setdefault(stem_of(file), file)
        if other != file:
            raise InputError(
                f"`{flag}`",
                expected="one volume with each name",
                received=f"{other} and {file}",
            )
    if not found:
        raise InputError(
            f"`{flag}`", expected=" or ".join(SCAN_SUFFIXES), received=path
        )
    return dict(sorted(found.items()))
