"""Figures drawn with matplotlib without a display, and saved atomically."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.volumes.class_colours import class_colour
from u2net_tf.wording import first_few, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Maximum number of entries of a legend, and of characters of each.
MAX_LEGEND, _MAX_CHARACTERS = 24, 40


def require_matplotlib() -> None:
    """Raises StoppedError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise StoppedError(
            "matplotlib is required for figures but not installed: "
            "pip install 'u2net-tf[pictures]'"
        ) from error


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Returns an empty figure that does not need a display.

    Raises:
      StoppedError: if matplotlib is not installed.
    """
    require_matplotlib()
    # Without pyplot, which keeps global state and may require a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_output(output: pathlib.Path) -> None:
    """Raises InputError unless `output` is the path of a PNG file, not a folder."""
    if output.suffix.lower() != ".png" or output.is_dir():
        raise InputError("`output`", expected="FILE.png", received=output)


def save_figure(figure: Figure, output: pathlib.Path) -> None:
    """Writes `figure` to a temporary name and moves it to `output`, a PNG."""
    with files.atomic_write(output) as partial, warnings.catch_warnings():
        # Case names may be in any script; characters missing in the font become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(partial, format="png", dpi=110)


def draw_contours(
    axis: Axes, labels: np.ndarray, *, colour: str | None = None
) -> set[int]:
    """Draws the outline of each class; returns the classes.

    Args:
      axis: axes to draw on.
      labels: (rows, columns) class indices.
      colour: colour of all outlines; None for the colour of each class.
    """
    classes = {int(label) for label in np.unique(labels) if label > 0}
    rows, columns = (np.arange(-1, size + 1) for size in labels.shape)
    for label in sorted(classes):
        # The margin of zeros closes outlines that touch the edge.
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


def legend_label(name: str) -> str:
    """Returns the label of a line; matplotlib ignores those that start with "_"."""
    return f"\N{ZERO WIDTH SPACE}{name}"


def draw_legend(
    figure: Figure | SubFigure,
    entries: Sequence[tuple[str, str]],
    *,
    num_columns: int,
    place: Literal["outside lower center", "center"] = "outside lower center",
) -> None:
    """Draws a legend on a grey background, since the colours are drawn over images.

    Args:
      figure: figure to draw on.
      entries: name and colour of each line; entries beyond `MAX_LEGEND` are summarized
        in a line of text.
      num_columns: maximum number of columns.
      place: location as matplotlib's `loc`; below the axes by default.
    """
    if not entries:
        return
    from matplotlib.lines import Line2D

    lines = []
    for name, colour in entries[:MAX_LEGEND]:
        label = shortened(name, _MAX_CHARACTERS)
        lines.append(Line2D([], [], color=colour, label=legend_label(label)))
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
