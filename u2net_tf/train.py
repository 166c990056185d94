"""Trains one network for all domains of a plan, or one for each.

  python -m u2net_tf.train --flagfile=universal --data_dir=DIR --model_dir=DIR

If interrupted, it resumes from the last checkpoint when rerun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from u2net_tf import command, machine
from u2net_tf.config.training import TrainConfig

if TYPE_CHECKING:
    from u2net_tf.training.loop import Run


def main(config: TrainConfig) -> None:
    """Trains, or resumes training."""
    machine.import_tensorflow()
    from u2net_tf.training import runs

    def report(run: Run) -> None:
        print(command.name_flags(runs.summary(run)), flush=True)

    if config.independent:
        runs.train_independently(
            config, progress=command.progress_bar, on_finished=report
        )
    else:
        report(runs.train(config, progress=command.progress_bar))


def run() -> None:
    """Entry point of `u2net-train`."""
    command.start(main, TrainConfig)


if __name__ == "__main__":
    run()
