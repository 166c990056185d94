"""The result of a comparison of scores, as a table and as a picture."""

from __future__ import annotations

import math
import pathlib

from tabulate import SEPARATING_LINE, tabulate

from u2net_tf.config.evaluation import Measure
from u2net_tf.evaluation.compare_scores import MEAN_OF_CLASSES, Comparison
from u2net_tf.evaluation.paired_statistics import Pair, PairedScores
from u2net_tf.evaluation.saved_scores import Scores
from u2net_tf.evaluation.tables import mean
from u2net_tf.visualization import paired_scores

# Measure -> its name with the unit, and the factor from the values in the files.
MEASURES: dict[Measure, tuple[str, float]] = {
    "dice": ("Dice %", 100.0),
    "surface_dice": ("surface Dice %", 100.0),
    "hd95_mm": ("HD95 mm", 1.0),
    "false_positive_ml": ("false positives ml", 1.0),
}
_LOWER_IS_BETTER: tuple[Measure, ...] = ("hd95_mm", "false_positive_ml")
_MAX_CHANGES = 3


def format_comparison(comparison: Comparison, *, unit: str = "case") -> str:
    """Formats a comparison: its sources, the table, the largest changes and notes.

    Args:
      comparison: the comparison.
      unit: what a pair is, "case" or "group".
    """
    name, _ = MEASURES[comparison.measure]
    return "\n".join(
        [
            f"baseline: {_describe(comparison.baseline)}",
            f"candidate: {_describe(comparison.candidate)}",
            "",
            _format_table(comparison, f"{unit}s"),
            f"{name}: means over the {unit}s with a score in both; better, worse: "
            f"number of {unit}s",
            f"95 % interval: of the mean difference, by a bootstrap over {unit}s; p: "
            "Wilcoxon signed-rank test, for each row by itself",
            *_largest_changes(comparison),
            *comparison.notes,
        ]
    )


def _describe(scores: Scores) -> str:
    summary = scores.summary
    parts = [summary.checkpoint]
    if summary.split:
        parts.append(f"{summary.split} cases")
    settings = {**(summary.prediction or {}), **summary.postprocessing}
    parts += [f"{name}={value}" for name, value in settings.items()]
    parts += [f"{name} at depth {n}" for name, n in (summary.depths or {}).items()]
    return f"{scores.folder} ({', '.join(parts)})"


def _format_table(comparison: Comparison, units: str) -> str:
    name, factor = MEASURES[comparison.measure]
    columns = ["domain", "class", units, f"baseline {name}", "candidate", "difference"]
    columns += ["95 % interval", "median", "better", "worse", "p"]
    rows: list[list[str] | str] = [
        _cells(row, comparison.measure) for row in comparison.classes
    ]
    of_classes = [row for row in comparison.classes if row.label != MEAN_OF_CLASSES]
    if len({row.domain for row in of_classes}) > 1:
        means = [mean(row.baseline for row in of_classes)]
        means += [mean(row.candidate for row in of_classes)]
        cells = [f"{factor * value:.2f}" for value in means]
        cells += [_signed(factor * (means[1] - means[0]))]
        rows += [SEPARATING_LINE, ["mean of all classes", "", "", *cells, *[""] * 5]]
    if comparison.regions:
        rows += [SEPARATING_LINE, ["regions, not in the means", *[""] * 10]]
        rows += [_cells(row, comparison.measure) for row in comparison.regions]
    return tabulate(
        rows,
        headers=columns,
        tablefmt="simple",
        colalign=("left", "left", *["right"] * (len(columns) - 2)),
        disable_numparse=True,
    )


def _cells(row: PairedScores, measure: Measure) -> list[str]:
    _, factor = MEASURES[measure]
    better, worse = row.num_increased, row.num_decreased
    if measure in _LOWER_IS_BETTER:
        better, worse = worse, better
    return [
        row.domain,
        row.label,
        str(len(row.pairs)),
        f"{factor * row.baseline:.2f}",
        f"{factor * row.candidate:.2f}",
        _signed(factor * row.difference),
        " to ".join(_signed(factor * limit) for limit in row.interval)
        if not math.isnan(row.interval[0])
        else "–",
        _signed(factor * row.median),
        str(better),
        str(worse),
        _p(row.p_value),
    ]


def _largest_changes(comparison: Comparison) -> list[str]:
    """Returns lines with the largest increases and decreases."""
    _, factor = MEASURES[comparison.measure]
    every = [
        (pair, row)
        for row in comparison.classes
        if row.label != MEAN_OF_CLASSES
        for pair in row.pairs
    ]
    lines = []
    for name, sign in (("increases", 1), ("decreases", -1)):
        changes = [(sign * pair.difference, pair, row) for pair, row in every]
        changes.sort(key=lambda change: -change[0])
        largest = [change for change in changes[:_MAX_CHANGES] if change[0] > 0]
        if largest:
            lines.append(f"largest {name}:")
            lines += [_change(pair, row, factor) for _, pair, row in largest]
    return lines


def _change(pair: Pair, row: PairedScores, factor: float) -> str:
    values = f"{factor * pair.baseline:.2f} to {factor * pair.candidate:.2f}"
    return f"  {pair.name}, {row.domain}/{row.label}: {values}"


def _signed(value: float) -> str:
    # Without a sign if it is rounded to 0.
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def draw_comparison(comparison: Comparison, output: pathlib.Path) -> None:
    """Draws the scores of every pair; see `paired_scores.draw_paired_scores`."""
    name, factor = MEASURES[comparison.measure]
    paired_scores.draw_paired_scores(
        [
            paired_scores.Panel(
                f"{row.domain}\n{row.label}",
                [pair.name for pair in row.pairs],
                [factor * pair.baseline for pair in row.pairs],
                [factor * pair.candidate for pair in row.pairs],
            )
            for row in (*comparison.classes, *comparison.regions)
        ],
        output,
        measure=name,
        lower_is_better=comparison.measure in _LOWER_IS_BETTER,
    )
