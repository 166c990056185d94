"""Logs the metrics of an epoch to `training.csv` and TensorBoard."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from u2net_tf.models.run_state import Logs
from u2net_tf.plan.domains import Plan
from u2net_tf.training.csv_log import CsvLog
from u2net_tf.training.epoch_metrics import EpochMetrics
from u2net_tf.training.tensorboard import TensorBoardLog

# Columns without a domain -> tags in TensorBoard, which groups tags by their part
# before the first slash. The other columns are used as tags.
_TAGS = {
    "loss": "loss/all",
    "loss_moving_average": "loss/moving_average",
    "learning_rate": "run/learning_rate",
    "seconds_per_step": "run/seconds_per_step",
    "input_wait_share": "run/input_wait_share",
    "steps_left_out": "run/steps_left_out",
}


def columns(plan: Plan) -> list[str]:
    """Returns the columns of `training.csv`."""
    return [
        "epoch",
        "step",
        *_TAGS,
        *(_loss_column(name) for name in plan.names),
        *(
            _dice_column(domain.name, name)
            for domain in plan.domains
            for name in domain.scored_names
        ),
    ]


def to_logs(metrics: EpochMetrics) -> Logs:
    """Returns the metrics by column of `training.csv`."""
    logs: Logs = {
        "epoch": metrics.epoch,
        "step": metrics.step,
        "loss": metrics.loss,
        "loss_moving_average": metrics.loss_moving_average,
        "learning_rate": metrics.learning_rate,
        "seconds_per_step": metrics.seconds_per_step,
        "input_wait_share": metrics.input_wait_share,
    }
    if metrics.skipped_steps is not None:
        logs["steps_left_out"] = metrics.skipped_steps
    for domain, loss in metrics.loss_by_domain.items():
        logs[_loss_column(domain)] = loss
    for domain, by_name in metrics.dice.items():
        for name, score in by_name.items():
            logs[_dice_column(domain, name)] = score
    return logs


class Monitor:
    """Writes a row of `training.csv` and TensorBoard scalars per epoch.

    Args:
      model_dir: the run's folder; `training.csv` and `tensorboard/` are created in it.
      plan: plan of the trained domains.
      first_step: number of steps done; logs of later steps, left by a run that was
        killed, are removed.

    Attributes:
      last_step: step of the last existing row; 0 if there was none.
    """

    def __init__(
        self, model_dir: str | os.PathLike, plan: Plan, *, first_step: int = 0
    ):
        self._columns = columns(plan)
        folder = pathlib.Path(model_dir)
        self._csv = CsvLog(
            folder / "training.csv", self._columns, first_step=first_step
        )
        self.last_step = self._csv.last_step
        # If the row of `first_step` is missing, its scalars are written again.
        is_logged = self.last_step == first_step
        self._tensorboard = TensorBoardLog(
            folder / "tensorboard",
            last_step=first_step if is_logged else first_step - 1,
        )

    def write(self, logs: Mapping[str, float]) -> None:
        """Writes one epoch.

        Args:
          logs: as `to_logs` returns them: "epoch", "step" and any of the other columns.
        """
        scalars = {
            _TAGS.get(column, column): logs[column]
            for column in self._columns[2:]
            if column in logs
        }
        self._tensorboard.write(int(logs["step"]), scalars)
        # Written last: a resumed run uses this row to detect that the epoch was logged.
        self._csv.write(logs)

    def close(self) -> None:
        """Closes the TensorBoard file."""
        self._tensorboard.close()


def _loss_column(domain: str) -> str:
    return f"loss/{domain}"


def _dice_column(domain: str, class_or_region: str) -> str:
    return f"dice/{domain}/{class_or_region}"
