"""The folder of a run: checkpoints, `training.csv` and TensorBoard logs."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from u2net_tf.config.training import RunningConfig
from u2net_tf.models.best import Best
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.run_state import Logs, RunState
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.training.monitor import Monitor
from u2net_tf.training.step import Trainer
from u2net_tf.training.workers import Workers


class RunFolder:
    """What a run reads from its folder and, on one of its workers, writes to it.

    Args:
      path: the folder.
      checkpoints: the checkpoints in it.
      plan: plan of the trained domains.
      writes: whether this process writes to the folder.

    Attributes:
      path: the folder.
      saved_step: step of the last checkpoint that was restored or saved; 0 if none.
    """

    def __init__(
        self, path: str, checkpoints: Checkpoints, plan: Plan, *, writes: bool
    ):
        self.path = pathlib.Path(path)
        self.saved_step = 0
        self._checkpoints = checkpoints
        self._plan = plan
        self._writes = writes
        self._monitor: Monitor | None = None

    def restore(self) -> RunState | None:
        """Restores the newest checkpoint; see `Checkpoints.restore`."""
        saved = self._checkpoints.restore()
        if saved is not None:
            self.saved_step = saved.step
        return saved

    def save(self, state: RunState, candidate: Best | None = None) -> None:
        """Writes a checkpoint; see `Checkpoints.save`."""
        if self._writes:
            self._checkpoints.save(state, candidate)
        self.saved_step = state.step

    @property
    def saved_plan(self) -> Plan | None:
        """Plan of the checkpoint that was restored; None if none was."""
        return self._checkpoints.restored_plan

    @contextlib.contextmanager
    def logging_epochs(self, last_row: int, last_logs: Logs | None) -> Iterator[None]:
        """Opens the logs for `log`, and closes them at the end.

        Args:
          last_row: step of the last finished epoch; later rows are removed.
          last_logs: logs of that epoch, in case they were not written.
        """
        if not self._writes:
            yield
            return
        self._monitor = Monitor(self.path, self._plan, first_step=last_row)
        try:
            if last_logs is not None and self._monitor.last_step < last_row:
                # The run was killed between saving the epoch and logging it.
                self._monitor.write(last_logs)
            yield
        finally:
            self._monitor.close()
            self._monitor = None

    def log(self, logs: Logs) -> None:
        """Writes the logs of an epoch."""
        if self._monitor is not None:
            self._monitor.write(logs)

    def describe_checkpoint(self) -> str:
        """Returns which checkpoint is kept if the run ends, for error messages."""
        if self._checkpoints.newest() is None:
            return f"there is no checkpoint in {self.path} yet"
        return f"the last good checkpoint in {self.path} is kept"


def open_run_folder(
    trainer: Trainer,
    spec: ModelSpec,
    plan: Plan,
    config: RunningConfig,
    invariants: Mapping[str, Any] | None,
    workers: Workers,
) -> RunFolder:
    """Returns the folder of a run, which is not created before something is saved.

    Args:
      trainer: has the variables of the run.
      spec: specification of the network.
      plan: plan of the trained domains.
      config: settings of the run.
      invariants: see `Run`.
      workers: the workers of the run, of which the chief writes to the folder.
    """
    # The chief removes what an interrupted run has left before others read.
    with workers.chief_first():
        checkpoints = Checkpoints(
            config.run.model_dir,
            spec,
            trainer.network,
            trainer.variables_by_path(),
            keep=config.run.keep,
            invariants={
                "precision": trainer.network.dtype_policy.name,
                "trained domains": list(plan.names),
                "shared variables": trainer.train_shared,
                "fold": config.data.fold,
                "weight_ema_decay": config.optimizer.weight_ema_decay,
                **(invariants or {}),
            },
        )
    return RunFolder(config.run.model_dir, checkpoints, plan, writes=workers.is_chief)
