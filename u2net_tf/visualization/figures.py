"""Figures drawn off screen with matplotlib, and saved whole or not at all."""

from __future__ import annotations

import pathlib
import textwrap
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.volumes.class_colours import class_colour
from u2net_tf.wording import first_few

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Entries of a legend, and characters of each.
MAX_LEGEND, _MAX_CHARACTERS = 24, 40


def require_matplotlib() -> None:
    """Raises StoppedError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise StoppedError(
            "pictures need matplotlib, which is not installed: "
            "pip install 'u2net-tf[pictures]'"
        ) from error


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Returns an empty figure that needs no screen.

    Raises:
      StoppedError: If matplotlib is not installed.
    """
    require_matplotlib()
    # Not through pyplot: that keeps global state and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_output(output: pathlib.Path) -> None:
    """Raises InputError unless `output` names a PNG file that can be written."""
    if output.suffix.lower() != ".png" or output.is_dir():
        raise InputError("`output`", expected="FILE.png", received=output)


def save_figure(figure: Figure, output: pathlib.Path) -> None:
    """Writes `figure` to a temporary name and moves it to `output`, a PNG."""
    with files.written_whole(output) as partial, warnings.catch_warnings():
        # Names of cases may be in any script; what the font lacks becomes a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(partial, format="png", dpi=110)


def draw_contours(
    axis: Axes, labels: np.ndarray, *, colour: str | None = None
) -> set[int]:
    """Draws the outline of each class of `labels` `[row, column]`; returns them.

    Args:
      axis: to draw on.
      labels: class indices.
      colour: of all outlines; None for that of each class.
    """
    classes = {int(label) for label in np.unique(labels) if label > 0}
    rows, columns = (np.arange(-1, size + 1) for size in labels.shape)
    for label in sorted(classes):
        # The margin of zeros closes the outline of what touches the edge.
        mask = np.pad(labels == label, 1).astype(float)
        axis.contour(
            columns,
            rows,
            mask,
            levels=[0.5],
            colors=[colour or class_colour(label)],
            linewidths=1.3,
        )
    return classes


def draw_legend(
    figure: Figure | SubFigure,
    entries: Sequence[tuple[str, str]],
    *,
    num_columns: int,
    place: Literal["outside lower center", "center"] = "outside lower center",
) -> None:
    """Draws a legend on grey, as the colours lie over images.

    Args:
      figure: to draw on.
      entries: name and colour of each line; those beyond `MAX_LEGEND` are listed in
        words.
      num_columns: how many stand side by side at most.
      place: where, as matplotlib's `loc`; below the rest by default.
    """
    if not entries:
        return
    from matplotlib.lines import Line2D

    lines = []
    for name, colour in entries[:MAX_LEGEND]:
        label = textwrap.shorten(name, _MAX_CHARACTERS, placeholder="…")
        # A label that starts with an underscore would be left out.
        lines.append(Line2D([], [], color=colour, label=f"\N{ZERO WIDTH SPACE}{label}"))
    if rest := [name for name, _ in entries[MAX_LEGEND:]]:
        lines.append(Line2D([], [], alpha=0, label=f"and {first_few(rest)}"))
    legend = figure.legend(
        handles=lines,
        loc=place,
        ncols=min(num_columns, len(lines)),
        fontsize=8,
        facecolor="#808080",
        labelcolor="white",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
