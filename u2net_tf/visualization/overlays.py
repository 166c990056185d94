"""Draws a sheet of pictures: references and predictions over the images."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.visualization import figures, slices
from u2net_tf.volumes import images
from u2net_tf.volumes.grid import Grid, turned_onto
from u2net_tf.volumes.scan_names import SCAN_SUFFIXES, is_scan_name, scan_stem
from u2net_tf.wording import first_few

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class OverlayCase:
    """The files of one row of the sheet; without a reference its column is empty."""

    name: str
    image_path: pathlib.Path
    reference_path: pathlib.Path | None
    prediction_path: pathlib.Path


def find_cases(
    images: Sequence[str],
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    max_cases: int,
) -> list[OverlayCase]:
    """Finds the files that belong together.

    Args:
      images: files or folders.
      references: as many, or none; an empty string stands for no reference.
      predictions: as many.
      max_cases: at most this many from each folder, in the order of their names.

    Returns:
      The cases, in the order of the arguments.

    Raises:
      InputError: if the numbers differ, or a folder gives no case.
      FileNotFoundError: if a file or folder is not there.
    """
    references = references or [""] * len(images)
    if not len(images) == len(references) == len(predictions):
        raise InputError(
            "`image`, `reference`, `prediction`",
            expected="each as often as the others, or no `reference`",
            received=f"{len(images)}, {len(references)}, {len(predictions)} of them",
        )
    return [
        case
        for paths in zip(images, references, predictions, strict=True)
        for case in _cases_of(*paths, max_cases)
    ]


def _cases_of(
    image: str, reference: str, prediction: str, max_cases: int
) -> list[OverlayCase]:
    """The first cases of an image file or folder, in the order of their names."""
    image_files = _list_files("image", image)
    prediction_files = _list_files("prediction", prediction)
    reference_files = _list_files("reference", reference) if reference else {}
    if pathlib.Path(image).is_file() and pathlib.Path(prediction).is_file():
        # Files named one by one belong together whatever they are called.
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
    return [
        OverlayCase(
            name=name,
            image_path=image_files[name],
            reference_path=reference_files.get(name),
            prediction_path=prediction_files[name],
        )
        for name in names
    ]


def _list_files(flag: str, file_or_folder: str) -> dict[str, pathlib.Path]:
    """Returns the volumes by name without ending, in order; hidden ones are left out.

    A label map may have another format than its image.
    """
    path = pathlib.Path(file_or_folder)
    if not path.exists():
        raise FileNotFoundError(f"`{flag}`: no such file or folder: {path}")
    files = [path] if path.is_file() else sorted(path.iterdir())
    found: dict[str, pathlib.Path] = {}
    for file in files:
        if not is_scan_name(file) or file.name.startswith("."):
            continue
        other = found.setdefault(scan_stem(file), file)
        if other != file:
            raise InputError(
                f"`{flag}`",
                expected="one volume of each name",
                received=f"{other} and {file}",
            )
    if not found:
        raise InputError(
            f"`{flag}`", expected=" or ".join(SCAN_SUFFIXES), received=path
        )
    return found


def draw_overlays(cases: Sequence[OverlayCase], output: pathlib.Path) -> None:
    """Draws a row per case: the image, the reference over it, the prediction over it.

    The slice is the axial one with most foreground in the reference (in the
    prediction where there is none). The patient's right is on the left of the
    picture and the front on top, as radiologists look at it.

    Args:
      cases: at least one.
      output: the PNG file.

    Raises:
      InputError: if there is no case, `output` is no PNG, or a label map does not
        lie on its image's grid.
      StoppedError: if matplotlib is missing.
    """
    figures.check_output(output)
    if not cases:
        raise InputError("cases", expected="at least one", received="none")
    figure = figures.new_figure(9.0, 3.0 * len(cases) + 0.4)
    axes = figure.subplots(len(cases), 3, squeeze=False)
    classes: set[int] = set()
    for row, case in zip(axes, cases, strict=True):
        classes |= _draw_case(row, case)
    for axis, title in zip(axes[0], ("image", "reference", "prediction"), strict=True):
        axis.set_title(title)
    if classes:
        from matplotlib.lines import Line2D

        lines = [
            Line2D([], [], color=figures.class_colour(label), label=f"class {label}")
            for label in sorted(classes)
        ]
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    figures.save_figure(figure, output)


def _draw_case(row: Sequence[Axes], case: OverlayCase) -> set[int]:
    """Draws one row and returns the classes in it."""
    # Voxel sizes of the affine, which places label maps over the image.
    volume = images.load_image([case.image_path], spacing_source="affine")
    image = volume.data[0]
    reference = None
    if case.reference_path is not None:
        reference = _read_labels(case.reference_path, volume.grid)
    prediction = _read_labels(case.prediction_path, volume.grid)
    guide = prediction if reference is None else reference
    height = slices.choose_slice(guide)
    window = slices.choose_window(image[height], guide[height] > 0)
    _, spacing_y, spacing_x = volume.spacing_mm
    num_slices, num_rows, num_columns = image.shape
    classes: set[int] = set()
    for axis, labels in zip(row, (None, reference, prediction), strict=True):
        axis.imshow(
            slices.as_picture(image[height]),
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            aspect=spacing_y / spacing_x,
        )
        # Room for outlines along the edge, which a frame would hide.
        axis.set(xticks=[], yticks=[], frame_on=False)
        axis.set(xlim=(-1, num_columns), ylim=(num_rows, -1))
        if labels is not None:
            classes |= figures.draw_contours(axis, slices.as_picture(labels[height]))
    row[0].set_ylabel(f"{case.name}\nslice {height + 1} of {num_slices}")
    if case.reference_path is None:
        row[1].set_xlabel("no reference")
    return classes


def _read_labels(path: pathlib.Path, grid: Grid) -> np.ndarray:
    """Reads the label map of a case, which lies on the grid of its image."""
    return turned_onto(images.load_labels(path), grid)
