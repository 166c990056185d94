r"""Compares the scores of two models, or of two settings, case by case.

  python -m u2net_tf.compare --baseline=MODEL/test --candidate=OTHER_MODEL/test

Both are folders that evaluate or score wrote. Prints the mean scores of each class over
the cases that both have, the mean difference with a confidence interval, the number of
cases that are better and worse, and the p-value of a Wilcoxon signed-rank test. Lists
the cases that changed most, and what could not be compared. With --output=FILE.png, it
also draws the scores of every case. Needs SciPy (`pip install 'u2net-tf[statistics]'`),
and matplotlib to draw.
"""

from __future__ import annotations

import pathlib

from u2net_tf import command, files
from u2net_tf.config.evaluation import CompareConfig


def main(config: CompareConfig) -> None:
    """Prints the table and draws the picture."""
    from u2net_tf.evaluation import comparison_report
    from u2net_tf.evaluation.compare_scores import compare_scores
    from u2net_tf.visualization import figures

    if config.output is not None:
        figures.check_output(pathlib.Path(config.output))
        files.check_writable(config.output)
        figures.require_matplotlib()
    comparison = compare_scores(config)
    unit = "group" if config.group_by else "case"
    print(comparison_report.format_comparison(comparison, unit=unit))
    if config.output is not None:
        comparison_report.draw_comparison(comparison, pathlib.Path(config.output))
        print(f"wrote {config.output}")


def run() -> None:
    """Entry point of `u2net-compare`."""
    command.start(main, CompareConfig)


if __name__ == "__main__":
    run()
