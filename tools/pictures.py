"""Figures drawn off screen with matplotlib, and saved whole or not at all."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from u2net_tf import command, files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Returns an empty figure that needs no screen.

    Raises:
        StoppedError: if matplotlib is not installed.
    """
    # Not through pyplot: that keeps global state and may look for a screen.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise command.StoppedError(
            "pictures need matplotlib, which is not installed: "
            "pip install 'u2net-tf[pictures]'"
        ) from error
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_output(output: pathlib.Path) -> None:
    """Raises InputError unless `output` names a PNG file that can be written."""
    if output.suffix.lower() != ".png" or output.is_dir():
        raise command.InputError(f"--output: expected FILE.png. Received: {output}")


def save_figure(figure: Figure, output: pathlib.Path) -> None:
    """Writes `figure` to a temporary name and moves it to `output`, a PNG."""
    with files.written_whole(output) as partial:
        figure.savefig(partial, format="png", dpi=110)
