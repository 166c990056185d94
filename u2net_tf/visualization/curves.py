"""Plots the loss and the Dice of a training run."""

from __future__ import annotations

import collections
import csv
import pathlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from u2net_tf.errors import InputError
from u2net_tf.visualization import figures
from u2net_tf.wording import first_few

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A column of the log: (step, value) of its non-empty cells, sorted by step.
Curve = list[tuple[int, float]]


def read_curves(path: pathlib.Path) -> dict[str, Curve]:
    """Reads every column of a training log against its column `step`.

    Args:
      path: the file. A resumed run may log a step twice; the later row counts.

    Returns:
      Name of each column except `step` -> its curve, without empty cells.

    Raises:
      FileNotFoundError: if the file does not exist.
      InputError: if it has no column `step` or no rows, or a cell is not a number.
    """
    if not path.is_file():
        inner = [log.parent for log in sorted(path.parent.glob(f"*/{path.name}"))]
        found = f", but runs in {first_few(inner)}" if inner else ""
        raise FileNotFoundError(
            "`model_dir`: expected a folder written by u2net_tf.train. "
            f"Received: no {path}{found}"
        )
    points: dict[str, dict[int, float]] = collections.defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if "step" not in columns:
            raise InputError(path, expected="a column 'step'", received=columns)
        for row in reader:
            for name, step, value in _read_row(path, reader.line_num, row):
                points[name][step] = value
    if not points:
        raise InputError(path, expected="a row per epoch", received="the header only")
    return {name: sorted(column.items()) for name, column in points.items()}


def _read_row(
    path: pathlib.Path, line: int, row: dict[str, str | None]
) -> Iterator[tuple[str, int, float]]:
    """Yields (column, step, value) for each non-empty cell of a line."""
    step = row.pop("step")
    try:
        for name, cell in row.items():
            if cell:
                yield name, int(step or ""), float(cell)
    except (TypeError, ValueError):
        raise InputError(
            f"{path}, line {line}",
            expected="numbers",
            received=[step, *row.values()],
        ) from None


def draw_curves(
    model_dir: pathlib.Path,
    output: pathlib.Path,
    *,
    splits: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Plots `model_dir/training.csv` to a PNG: the loss on the left, Dice on the right.

    Args:
      model_dir: folder of the training run.
      output: the PNG file.
      splits: domain -> split that training monitors, "validation" or "test"; domains
        for which it is unknown are missing.

    Raises:
      FileNotFoundError: if the log does not exist.
      InputError: if it is not a training log or `output` is not a PNG file.
      StoppedError: if matplotlib is not installed.
    """
    figures.check_output(output)
    curves = read_curves(model_dir / "training.csv")
    domains = sorted(
        {name.split("/")[1] for name in curves if name.startswith(("loss/", "dice/"))}
    )
    colours = {domain: f"C{index % 10}" for index, domain in enumerate(domains)}
    figure = figures.new_figure(11.0, 4.4)
    left, right = figure.subplots(1, 2)
    _draw_losses(left, curves, colours)
    _draw_dice(right, curves, colours, splits)
    figures.save_figure(figure, output)


def _draw_losses(axis: Axes, curves: dict[str, Curve], colours: dict[str, str]) -> None:
    """Plots the loss of each domain and the moving average over all domains."""
    for name, curve in curves.items():
        if name.startswith("loss/"):
            domain = name.removeprefix("loss/")
            _draw_curve(axis, curve, color=colours[domain], label=domain)
    if "loss_moving_average" in curves:
        _draw_curve(
            axis,
            curves["loss_moving_average"],
            color="black",
            linestyle="dashed",
            label="moving average, all domains",
        )
    axis.set(
        title="training loss",
        xlabel="step (one batch of one domain)",
        ylabel="loss (no unit, lower is better)",
    )
    _finish(axis)


def _draw_dice(
    axis: Axes,
    curves: dict[str, Curve],
    colours: dict[str, str],
    splits: Mapping[str, str],
) -> None:
    """Plots the Dice of each class, coloured by domain."""
    found = {splits.get(domain, "") for domain in colours}
    title = "Dice during training"
    if len(found) == 1 and found != {""}:
        title = f"Dice of {found.pop()} cases"
    drawn: collections.Counter[str] = collections.Counter()
    for name, curve in curves.items():
        if name.startswith("dice/"):
            domain, _, label = name.removeprefix("dice/").partition("/")
            linestyle = ("solid", "dashed", "dotted", "dashdot")[drawn[domain] % 4]
            drawn[domain] += 1
            # Only needed where the title does not give the split.
            is_named = len(found) > 1 and domain in splits
            note = f" ({splits[domain]} cases)" if is_named else ""
            _draw_curve(
                axis,
                curve,
                color=colours[domain],
                linestyle=linestyle,
                marker="o",
                label=(f"{domain}: {label}" if label else domain) + note,
            )
    axis.set(
        title=title,
        xlabel="step (one batch of one domain)",
        ylabel="Dice = 2 |A∩B| / (|A| + |B|), mean over cases",
        ylim=(-0.02, 1.02),
    )
    if not drawn:
        axis.text(0.5, 0.5, "no evaluation yet", ha="center", transform=axis.transAxes)
    _finish(axis)


def _draw_curve(axis: Axes, curve: Curve, **style: Any) -> None:
    """Plots a line; a single point, which would be invisible, gets a marker."""
    steps, values = zip(*curve, strict=True)
    marker = style.pop("marker", "o" if len(steps) == 1 else "")
    label = figures.legend_label(style.pop("label"))
    axis.plot(
        steps,
        values,
        label=label,
        marker=marker,
        markersize=3.5,
        linewidth=1.2,
        **style,
    )


def _finish(axis: Axes) -> None:
    """Adds a grid, and a legend if there are entries."""
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        for text in axis.legend(fontsize="small").get_texts():
            text.set_parse_math(False)
