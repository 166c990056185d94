"""The steps of an epoch: batches, losses, and what is logged of them."""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from u2net_tf.config.training import RunConfig
from u2net_tf.errors import StoppedError
from u2net_tf.models.run_state import PartialEpoch
from u2net_tf.plan.domains import Plan
from u2net_tf.progress import Progress
from u2net_tf.training.batches import Batch, TrainingBatches
from u2net_tf.training.epoch_metrics import EpochTotals
from u2net_tf.training.pace import Pace
from u2net_tf.training.step import Trainer
from u2net_tf.wording import duration

# Steps that a GPU is given before the loss of the first of them is read. Each holds its
# batch in memory.
_MAX_UNREAD_ON_GPU = 2


@dataclasses.dataclass(frozen=True)
class _Taken:
    """A step whose loss was not read yet, and may not be computed yet.

    Attributes:
      step: its number.
      turn: index of its domain in the plan.
      batch: what it was taken on.
      loss: scalar.
      scaling: as `LossScale.read` returned it after the step; None without scaling.
      seconds_waiting: time spent waiting for the batch.
      seconds_starting: time until the step had started.
      compiled: whether the step was compiled first.
    """

    step: int
    turn: int
    batch: Batch
    loss: float | tf.Tensor
    scaling: tuple[tf.Tensor, tf.Tensor] | None
    seconds_waiting: float
    seconds_starting: float
    compiled: bool


class EpochSteps:
    """Takes the steps of one epoch after the other.

    Args:
      trainer: takes a step.
      plan: plan of the trained domains.
      settings: number of steps and epochs.
      progress: shows the number of steps done in an epoch.
      check_stop: called between two steps; an exception that it raises ends them.
      what_is_kept: says which checkpoint remains, for errors.
      max_unread: number of steps to take before the loss of the first is read: reading
        it waits for the device, which would then be idle until the next step. If None,
        0 on a CPU and 2 on a GPU.

    Attributes:
      step: number of steps taken in all.
      totals: losses and durations of the epoch so far; after `take`, of all steps.
      pace: durations of this process.
    """

    def __init__(
        self,
        trainer: Trainer,
        plan: Plan,
        settings: RunConfig,
        *,
        progress: Progress,
        check_stop: Callable[[], None],
        what_is_kept: Callable[[], str],
        max_unread: int | None = None,
    ):
        if max_unread is None:
            has_gpu = bool(tf.config.list_logical_devices("GPU"))
            max_unread = _MAX_UNREAD_ON_GPU if has_gpu else 0
        self._max_unread = max_unread
        self._unread: collections.deque[_Taken] = collections.deque()
        self._trainer = trainer
        self._plan = plan
        self._settings = settings
        self._progress = progress
        self._check_stop = check_stop
        self._what_is_kept = what_is_kept
        self._skipped_steps = 0
        self.step = 0
        self.totals = EpochTotals(plan.names)
        self.pace = Pace()

    def resume(self, step: int, partial: PartialEpoch | None) -> None:
        """Goes to where a checkpoint was saved, whose variables are restored.

        Args:
          step: number of steps done in all.
          partial: the epoch so far; None at its start.
        """
        self.step = step
        self.totals = EpochTotals(self._plan.names, partial)
        self._skipped_steps = self._trainer.skipped_steps()

    def begin_epoch(self) -> None:
        """Forgets the steps of the epoch that has ended."""
        self.totals = EpochTotals(self._plan.names)

    def take(self, batches: TrainingBatches, label: str, *, epochs: int) -> None:
        """Takes the steps that are left of an epoch.

        Args:
          batches: the batches, from that of the next step on.
          label: name of the epoch.
          epochs: number of epochs done.

        Raises:
          StoppedError: if a loss is not finite, also if the steps end for another
            reason: whoever saves them has no later step than that of a finite loss.
          InputError: as of `TrainingBatches.read` and `check_voxels`.
        """
        done = self.totals.num_steps
        total = max(done, self._settings.steps_per_epoch)
        steps = self._progress(
            range(done, total), label, total=total, initial=done, unit="step"
        )
        try:
            for _ in steps:
                # Not after the last step, which the epoch's checkpoint saves.
                self._check_stop()
                if self._take_step(batches):
                    steps.unpause()
                if self.totals.num_steps:
                    steps.set_postfix(refresh=False, **self._shown(epochs))
            self._read_losses(batches)
        except Exception:
            # What ends the steps may save them: not before every loss was checked.
            self._read_losses(batches)
            raise

    def _take_step(self, batches: TrainingBatches) -> bool:
        """Takes a step; returns whether it was compiled first."""
        started = time.perf_counter()
        batch = batches.read()
        received = time.perf_counter()
        turn = self.step % len(self._plan.domains)
        domain = self._trainer.domains[turn]
        compiled = not self._trainer.is_compiled(domain)
        if compiled:
            logging.info("compiling the step of %s", self._plan.names[turn])
        step = self._trainer.start_step if self._max_unread else self._trainer.step
        loss, scale = step(domain, batch), self._trainer.loss_scale
        self.step += 1
        taken = _Taken(
            step=self.step,
            turn=turn,
            batch=batch,
            loss=loss,
            scaling=scale.read() if scale is not None else None,
            seconds_waiting=received - started,
            seconds_starting=time.perf_counter() - received,
            compiled=compiled,
        )
        self._unread.append(taken)
        self._read_losses(batches, 0 if compiled else self._max_unread)
        return compiled

    def _read_losses(self, batches: TrainingBatches, num_left: int = 0) -> None:
        """Reads the losses of all steps but the last `num_left`, the oldest first."""
        while len(self._unread) > num_left:
            taken = self._unread.popleft()
            started = time.perf_counter()
            loss = float(taken.loss)
            seconds = taken.seconds_starting + time.perf_counter() - started
            name = self._plan.names[taken.turn]
            if taken.compiled:
                logging.info(
                    "compiling the step of %s: %s, with its first run",
                    name,
                    duration(seconds),
                )
            skipped = self._check_loss(loss, taken, batches)
            self.totals.add(
                name,
                loss,
                seconds_waiting=taken.seconds_waiting,
                seconds_computing=seconds,
                compiled=taken.compiled,
                skipped=skipped,
            )
            seconds += taken.seconds_waiting
            self.pace.add_step(seconds, compiled=taken.compiled)

    def _shown(self, epochs: int) -> dict[str, object]:
        """Values that are shown beside the number of steps."""
        values: dict[str, object] = {
            "step": self.step,
            "loss": f"{self.totals.loss_so_far():.3f}",
            "waiting_for_data": f"{100 * self.totals.input_wait_share():.0f} %",
        }
        limit, every = self._settings.max_epochs, self._settings.validate_every_epochs
        seconds = self.pace.seconds_left(
            (limit - epochs) * self._settings.steps_per_epoch - self.totals.num_steps,
            limit // every - epochs // every if every else 0,
        )
        if limit and seconds is not None:
            values["run_ends_in"] = duration(max(0.0, seconds))
        return values

    def _check_loss(self, loss: float, taken: _Taken, batches: TrainingBatches) -> int:
        """Returns the number of steps that were skipped, 0 or 1.

        Raises:
          StoppedError: if the loss is not finite.
          InputError: if that is because of the voxels.
        """
        domain, batch = self._plan.names[taken.turn], taken.batch
        if not math.isfinite(loss):
            # These steps started from variables that may no longer be finite.
            self._unread.clear()
            batches.check_voxels(batch, taken.turn)
            raise StoppedError(
                f"step {taken.step}: expected a finite loss and gradient. Received: "
                f"{loss} in domain {domain}, cases "
                f"{', '.join(batches.cases_of(batch))}; {self._what_is_kept()}"
            )
        if taken.scaling is None:
            return 0
        total, scale = taken.scaling
        skipped = int(total) - self._skipped_steps
        self._skipped_steps += skipped
        if skipped:
            logging.info(
                "step %d skipped: a gradient of domain %s, cases %s, overflowed in "
                "float16; the loss is now scaled by %g",
                taken.step,
                domain,
                ", ".join(batches.cases_of(batch)),
                float(scale),
            )
        return skipped
