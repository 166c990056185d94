"""Draws a preview of a prediction: its label map over the scan in three planes."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.visualization import figures, slices
from u2net_tf.volumes.class_colours import class_colour
from u2net_tf.volumes.grid import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Name of each plane, its normal axis of (z, y, x), and labels of its left and right.
_PLANES = (("axial", 0, "RL"), ("coronal", 1, "RL"), ("sagittal", 2, "AP"))
_WIDTH_INCHES, _LEGEND_COLUMNS = 11.0, 6
_MIN_HEIGHT_INCHES, _MAX_HEIGHT_INCHES, _TEXT_INCHES = 2.0, 7.0, 1.6


def draw_preview(
    image: Volume,
    classes: np.ndarray,
    names: Sequence[str],
    output: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draws an axial, a coronal and a sagittal slice with the outlines of the classes.

    Each is the slice with the most foreground, or the middle one without foreground.
    The patient's right, or in the sagittal slice the front, is on the left; the head
    is at the top. The slices are in true proportions.

    Args:
      image: (C, z, y, x), of which the first modality is shown.
      classes: (z, y, x) class indices.
      names: names of the classes, starting with the background.
      output: the PNG file.
      title: title of the figure.

    Raises:
      StoppedError: if matplotlib is not installed.
    """
    volume = image.data[0]
    extents_mm = np.array(volume.shape) * image.spacing_mm
    # Height and width of each plane.
    sizes_mm = [np.delete(extents_mm, across) for _, across, _ in _PLANES]
    widths = [max(width, 0.1 * max(extents_mm)) for _, width in sizes_mm]
    height = max(height for height, _ in sizes_mm) / sum(widths) * _WIDTH_INCHES
    height = float(np.clip(height, _MIN_HEIGHT_INCHES, _MAX_HEIGHT_INCHES))
    figure = figures.new_figure(_WIDTH_INCHES, height + _TEXT_INCHES)
    axes = figure.subplots(1, len(_PLANES), width_ratios=widths)
    window: tuple[float, float] | None = None
    shown: set[int] = set()
    for axis, (name, across, sides) in zip(axes, _PLANES, strict=True):
        index = slices.choose_slice(classes, across)
        plane = np.take(volume, index, across)
        labels = np.take(classes, index, across)
        # The same window for all, so that a tissue has the same grey.
        window = window or slices.choose_window(plane, labels > 0)
        rows_mm, columns_mm = np.delete(np.array(image.spacing_mm), across)
        shown |= _draw(axis, plane, labels, window, rows_mm / columns_mm, sides)
        place = f"{name}, slice {index + 1} of {volume.shape[across]}"
        axis.set_xlabel(place, fontsize=8)
    if not shown:
        title += ": no foreground"
    figure.suptitle(title, fontsize=10, parse_math=False)
    entries = [(names[number], class_colour(number)) for number in sorted(shown)]
    figures.draw_legend(figure, entries, num_columns=_LEGEND_COLUMNS)
    figures.save_figure(figure, output)


def _draw(
    axis: Axes,
    plane: np.ndarray,
    labels: np.ndarray,
    window: tuple[float, float],
    aspect: float,
    sides: str,
) -> set[int]:
    """Draws one slice and returns the classes in it."""
    rows, columns = plane.shape
    axis.imshow(
        slices.as_picture(plane),
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        aspect=aspect,
    )
    # A margin for outlines along the edge, which a frame would hide.
    axis.set(xticks=[], yticks=[], frame_on=False, xlim=(-1, columns), ylim=(rows, -1))
    for text, place, alignment in zip(
        sides, (0.01, 0.99), ("left", "right"), strict=True
    ):
        axis.text(
            place,
            0.5,
            text,
            transform=axis.transAxes,
            horizontalalignment=alignment,
            color="white",
            fontsize=9,
        )
    return figures.draw_contours(axis, slices.as_picture(labels))
