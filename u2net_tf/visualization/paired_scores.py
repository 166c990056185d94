"""Draws the scores of two models against each other, a panel per class."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.visualization import figures
from u2net_tf.wording import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_INCHES = 3.3
# Number of cases whose names are shown: those farthest from the diagonal.
_NUM_NAMED = 2
# Maximum number of characters of a line of a title, as wide as a panel, and of the name
# of a case, half as wide.
_MAX_TITLE, _MAX_NAME = 40, 24
_BETTER, _WORSE, _EQUAL = "tab:blue", "tab:red", "tab:gray"


@dataclasses.dataclass(frozen=True)
class Panel:
    """Scores of one class.

    Attributes:
      title: title of the panel.
      names: names of the cases.
      baseline: score of each case, along the x axis.
      candidate: score of each case, along the y axis.
    """

    title: str
    names: Sequence[str]
    baseline: Sequence[float]
    candidate: Sequence[float]


def draw_paired_scores(
    panels: Sequence[Panel],
    output: pathlib.Path,
    *,
    measure: str,
    lower_is_better: bool = False,
) -> None:
    """Draws a panel per class, with the candidate's scores over the baseline's.

    Cases above the diagonal have a higher score with the candidate. The names of the
    cases farthest from it are shown.

    Args:
      panels: the panels, at least one.
      output: the PNG file.
      measure: name of the score with its unit, for the axes.
      lower_is_better: whether a lower score is better; determines the colours.

    Raises:
      InputError: if `output` is not a PNG file.
      StoppedError: if matplotlib is not installed.
    """
    figures.check_output(output)
    num_columns = min(_COLUMNS, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure = figures.new_figure(_INCHES * num_columns, (_INCHES + 0.3) * num_rows + 0.4)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, lower_is_better)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.supxlabel(f"baseline: {measure}", fontsize=9)
    figure.supylabel(f"candidate: {measure}", fontsize=9)
    better = "below" if lower_is_better else "above"
    figure.suptitle(
        f"{better} the diagonal: the candidate is better", fontsize=9, color=_BETTER
    )
    figures.save_figure(figure, output)


def _draw_panel(axis: Axes, panel: Panel, lower_is_better: bool) -> None:
    # Means of equal scores in another order differ by rounding errors only.
    baseline, candidate = (np.round(s, 7) for s in (panel.baseline, panel.candidate))
    gain = (baseline - candidate) if lower_is_better else (candidate - baseline)
    colours = np.select([gain > 0, gain < 0], [_BETTER, _WORSE], _EQUAL)
    low, high = (f([*baseline, *candidate]) for f in (np.min, np.max))
    margin = 0.06 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    axis.plot(limits, limits, color="black", linewidth=0.8, linestyle="dashed")
    axis.scatter(baseline, candidate, s=16, c=list(colours), alpha=0.8, linewidths=0)
    for index in np.argsort(-np.abs(gain), kind="stable")[:_NUM_NAMED]:
        if gain[index]:
            # Towards the middle of the panel, so that the name is not cut off.
            is_right = baseline[index] > (low + high) / 2
            name = axis.annotate(
                shortened(panel.names[index], _MAX_NAME),
                (baseline[index], candidate[index]),
                xytext=(-4 if is_right else 4, 0),
                textcoords="offset points",
                ha="right" if is_right else "left",
                va="center",
                fontsize=6,
                parse_math=False,
            )
            # Panels would otherwise become smaller for names that extend beyond them.
            name.set_in_layout(False)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    lines = [shortened(line, _MAX_TITLE) for line in panel.title.split("\n")]
    axis.set_title("\n".join(lines), fontsize=8, parse_math=False)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
