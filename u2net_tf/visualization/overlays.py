"""Draws references and predictions over their images, in one figure."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.visualization import figures, slices
from u2net_tf.visualization.label_names import LabelNames
from u2net_tf.visualization.overlay_cases import OverlayCase
from u2net_tf.volumes import images
from u2net_tf.volumes.class_colours import class_colour
from u2net_tf.volumes.grid import Grid, reorient_to
from u2net_tf.wording import escape_controls, quantity, shortened

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

_ROW_INCHES, _LINE_INCHES = 3.2, 0.2
_LEGEND_COLUMNS = 3
# More scores would not fit in the title of a row.
_MAX_SCORES = 4


def draw_overlays(cases: Sequence[OverlayCase], output: pathlib.Path) -> None:
    """Draws a row per case: the image, then with the reference, then the prediction.

    The slice is the axial one with the most foreground in the reference or, without
    one, in the prediction. The patient's right is on the left and the front at the top
    (radiological convention). The title of each row gives the case and its Dice over
    the entire volume.

    Args:
      cases: at least one.
      output: the PNG file.

    Raises:
      InputError: if there are no cases, `output` is not a PNG file, or a label map is
        not on the grid of its image.
      StoppedError: if matplotlib is not installed.
    """
    figures.check_output(output)
    if not cases:
        raise InputError("cases", expected="at least one", received="none")
    # matplotlib does not reserve space for a legend below subfigures.
    heights = [_ROW_INCHES] * len(cases) + [_legend_inches(cases)]
    figure = figures.new_figure(9.0, sum(heights))
    *rows, last = figure.subfigures(
        len(heights), 1, squeeze=False, height_ratios=heights
    ).ravel()
    shown: dict[LabelNames, set[int]] = {}
    for row, case in zip(rows, cases, strict=True):
        shown.setdefault(case.label_names, set()).update(_draw_case(row, case))
    figures.draw_legend(
        last, _legend_entries(shown), num_columns=_LEGEND_COLUMNS, place="center"
    )
    figures.save_figure(figure, output)


def _legend_inches(cases: Sequence[OverlayCase]) -> float:
    """Returns the height of a legend of all classes, if all values have a name."""
    num_entries = sum(
        max(len(names.classes), _LEGEND_COLUMNS)
        for names in {case.label_names for case in cases}
    )
    num_lines = -(-min(num_entries, figures.MAX_LEGEND + 1) // _LEGEND_COLUMNS)
    return _LINE_INCHES * (num_lines + 1)


def _legend_entries(shown: Mapping[LabelNames, set[int]]) -> list[tuple[str, str]]:
    """Returns name and colour of each class; with its domain if there are several."""
    return [
        (
            f"{names.domain}: {names.name(value)}"
            if len(shown) > 1 and names.domain
            else names.name(value),
            class_colour(value),
        )
        for names, values in shown.items()
        for value in sorted(values)
    ]


def _draw_case(row: SubFigure, case: OverlayCase) -> set[int]:
    """Draws one row and returns the values in it."""
    # The voxel sizes of the affine, by which label maps are aligned with the image.
    volume = images.load_image([case.image_path], spacing_source="affine")
    image = volume.data[0]
    reference = None
    if case.reference_path is not None:
        reference = _read_labels(case, case.reference_path, volume.grid)
    prediction = _read_labels(case, case.prediction_path, volume.grid)
    is_annotated = np.ones(image.shape, bool)
    if reference is not None and case.label_names.ignore_label is not None:
        is_annotated = reference != case.label_names.ignore_label
        reference = np.where(is_annotated, reference, 0)
    guide = prediction if reference is None else reference
    height = slices.choose_slice(guide)
    window = slices.choose_window(image[height], guide[height] > 0)
    _, spacing_y, spacing_x = volume.spacing_mm
    num_slices, num_rows, num_columns = image.shape
    values: set[int] = set()
    labelled = {"image": None, "reference": reference, "prediction": prediction}
    for axis, (title, labels) in zip(row.subplots(1, 3), labelled.items(), strict=True):
        axis.imshow(
            slices.as_picture(image[height]),
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            aspect=spacing_y / spacing_x,
        )
        # A margin for outlines along the edge, which a frame would hide.
        axis.set(xticks=[], yticks=[], frame_on=False)
        axis.set(xlim=(-1, num_columns), ylim=(num_rows, -1))
        is_absent = title == "reference" and reference is None
        axis.set_xlabel(f"no {title}" if is_absent else title, fontsize=8)
        if labels is not None:
            values |= figures.draw_contours(axis, slices.as_picture(labels[height]))
    place = f"slice {height + 1} of {num_slices}"
    parts = [case.label_names.domain, case.name, place]
    title = escape_controls(", ".join(filter(None, parts)))
    if reference is not None:
        annotated = np.where(is_annotated, prediction, 0)
        title += f": {_describe_dice(reference, annotated, case.label_names)}"
    text = row.suptitle(title, x=0.01, horizontalalignment="left", fontsize=9)
    text.set_parse_math(False)
    return values


def _describe_dice(
    reference: np.ndarray, prediction: np.ndarray, names: LabelNames
) -> str:
    """Returns the Dice of each class, or the mean of many; "–" if undefined."""
    present = {*np.unique(reference).tolist(), *np.unique(prediction).tolist()}
    values = sorted({*names.values, *present} - {0})
    dice = {value: _dice(reference == value, prediction == value) for value in values}
    known = [score for score in dice.values() if score is not None]
    if not known:
        return "no foreground in reference and prediction"
    if len(values) > _MAX_SCORES:
        mean = sum(known) / len(known)
        return f"mean Dice {mean:.3f} of {quantity(len(known), 'class', 'classes')}"
    return "Dice " + ", ".join(
        f"{shortened(names.name(value), 20)} {'–' if score is None else f'{score:.3f}'}"
        for value, score in dice.items()
    )


def _dice(reference: np.ndarray, prediction: np.ndarray) -> float | None:
    size = np.count_nonzero(reference) + np.count_nonzero(prediction)
    return 2 * np.count_nonzero(reference & prediction) / size if size else None


def _read_labels(case: OverlayCase, path: pathlib.Path, grid: Grid) -> np.ndarray:
    """Reads a label map of a case, which must be on the grid of its image."""
    return case.label_names.merge(reorient_to(images.load_labels(path), grid))
