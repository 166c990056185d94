r"""Scores label maps that exist already, whichever program wrote them.

  python -m u2net_tf.score --predictions=DIR --plan=plan.json --output_dir=DIR

Prints the same table as evaluate, and writes dice.csv and summary.json. Label maps are
compared with the references on the grid of the scans; their voxels must have the values
of the domain's classes. The label maps of a cross-validation are scored together if
all folders are given:

  python -m u2net_tf.score --predictions=fold0/validation/predictions,\
      fold1/validation/predictions --split=train --plan=plan.json --output_dir=DIR

Cases without a usable label map are listed with the reason at the end; the exit status
is then 1. An interrupted run resumes where it left off.
"""

from __future__ import annotations

from u2net_tf import command
from u2net_tf.config.evaluation import ScoreConfig
from u2net_tf.wording import quantity


def main(config: ScoreConfig) -> None:
    """Scores every domain and prints the table."""
    from u2net_tf.evaluation.score_label_maps import score_label_maps

    progress = command.progress_every(config.log.log_every_seconds)
    found = score_label_maps(config, progress=progress)
    print(found.table(config.surface_tolerance_mm))
    print(
        f"{quantity(found.num_cases, 'label map')} scored: dice.csv and summary.json "
        f"in {found.output_dir}"
    )
    command.exit_if_skipped(found.skipped, found.num_all, "case")


def run() -> None:
    """Entry point of `u2net-score`."""
    command.start(main, ScoreConfig)


if __name__ == "__main__":
    run()
