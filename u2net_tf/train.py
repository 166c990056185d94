"""Trains one network for all domains of a plan, or one network for each domain.

  python -m u2net_tf.train --flagfile=universal --data_dir=DIR --model_dir=DIR

SIGTERM, SIGUSR1 and Ctrl-C stop training after the current step and save a checkpoint.
When rerun, training resumes from the last checkpoint.
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
    from u2net_tf.training import runs, stop_requests

    progress = command.progress_every(config.log.log_every_seconds)
    stop = stop_requests.from_command(config.run.max_minutes)

    def report(run: Run) -> None:
        print(command.name_flags(runs.summary(run)), flush=True)

    if config.independent:
        runs.train_independently(
            config, progress=progress, stop=stop, on_finished=report
        )
    else:
        report(runs.train(config, progress=progress, stop=stop))


def run() -> None:
    """Entry point of `u2net-train`."""
    command.start(main, TrainConfig)


if __name__ == "__main__":
    run()
