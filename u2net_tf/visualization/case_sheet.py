"""Draws contact sheets of a domain: a slice of each case, with label outlines."""

from __future__ import annotations

import dataclasses
import pathlib
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.visualization import figures
from u2net_tf.visualization.thumbnails import UNLISTED, Thumbnail
from u2net_tf.volumes.class_colours import class_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_COLUMNS, NUM_ROWS = 6, 8
CASES_PER_SHEET = NUM_COLUMNS * NUM_ROWS
_MAX_CHARACTERS = 30
_FAULT_COLOUR, _UNLISTED_COLOUR = "#cc0000", "#ffffff"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One case on a sheet.

    Attributes:
      name: name of the case.
      note: line below the name.
      is_faulty: whether name and note are red.
      thumbnail: the slice.
    """

    name: str
    note: str
    is_faulty: bool
    thumbnail: Thumbnail


def draw_case_sheet(
    panels: Sequence[Panel],
    classes: Sequence[str],
    output: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draws the cases row by row, in true proportions.

    Args:
      panels: at least one, and at most `CASES_PER_SHEET`.
      classes: names of the classes, without the background.
      output: the PNG file.
      title: title of the sheet, possibly of several lines.

    Raises:
      StoppedError: if matplotlib is not installed.
    """
    num_rows = -(-len(panels) // NUM_COLUMNS)
    figure = figures.new_figure(2.1 * NUM_COLUMNS, 2.6 * num_rows + 1.3)
    axes = figure.subplots(num_rows, NUM_COLUMNS, squeeze=False).ravel()
    shown: set[int] = set()
    for axis, panel in zip(axes, panels, strict=False):
        shown |= _draw_panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=9, parse_math=False)
    _draw_legend(figure, sorted(shown), classes)
    figures.save_figure(figure, output)


def _draw_panel(axis: Axes, panel: Panel) -> set[int]:
    thumbnail = panel.thumbnail
    rows, columns = thumbnail.grey.shape
    axis.imshow(thumbnail.grey, cmap="gray", vmin=0, vmax=255, aspect=thumbnail.aspect)
    # A margin for outlines along the edge, which a frame would hide.
    axis.set(xticks=[], yticks=[], frame_on=False, xlim=(-1, columns), ylim=(rows, -1))
    classes = thumbnail.classes
    present = {int(value) for value in np.unique(classes)} - {0}
    figures.draw_contours(axis, np.where(classes == UNLISTED, 0, classes))
    if UNLISTED in present:
        unlisted = (classes == UNLISTED).astype(np.uint8)
        figures.draw_contours(axis, unlisted, colour=_UNLISTED_COLOUR)
    colour = _FAULT_COLOUR if panel.is_faulty else "black"
    name = textwrap.fill(panel.name, _MAX_CHARACTERS)
    axis.set_title(f"{name}\n{panel.note}", fontsize=7, color=colour, parse_math=False)
    place = f"slice {thumbnail.index + 1} of {thumbnail.num_slices}"
    axis.set_xlabel(
        place if thumbnail.has_labels else f"{place}, no label map", fontsize=7
    )
    return present


def _draw_legend(figure: Figure, shown: list[int], classes: Sequence[str]) -> None:
    entries = [
        ("value without a class", _UNLISTED_COLOUR)
        if number == UNLISTED
        else (classes[number - 1], class_colour(number))
        for number in shown
    ]
    figures.draw_legend(figure, entries, num_columns=NUM_COLUMNS)
