"""The steps of an epoch: batches, losses and their logging."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from u2net_tf.config.training import RunConfig
from u2net_tf.errors import StoppedError
from u2net_tf.models.run_state import PartialEpoch
from u2net_tf.networks.device_memory import hint_for_step, reporting_exhausted
from u2net_tf.plan.domains import Plan
from u2net_tf.progress import Progress
from u2net_tf.training.batches import Batch, TrainingBatches
from u2net_tf.training.epoch_metrics import EpochTotals
from u2net_tf.training.pace import Pace
from u2net_tf.training.step import Trainer
from u2net_tf.wording import duration

# Steps queued on a GPU before the loss of the first of them is read. Each keeps its
# batch in memory.
_MAX_UNREAD_ON_GPU = 2


@dataclasses.dataclass(frozen=True)
class _PendingStep:
    """A step whose loss has not been read and may not have been computed.

    Attributes:
      step: its number.
      domain_index: index of its domain in the plan.
      batch: batch that it was trained on, to name its cases.
      loss: scalar.
      scaling: result of `LossScale.read` after the step; None without loss scaling.
      seconds_waiting: time spent waiting for the batch.
      seconds_starting: time taken to start the step.
      compiled: whether this includes compilation.
    """

    step: int
    domain_index: int
    batch: Batch
    loss: float | tf.Tensor
    scaling: tuple[tf.Tensor, tf.Tensor] | None
    seconds_waiting: float
    seconds_starting: float
    compiled: bool


class EpochSteps:
    """Takes the steps of a run, epoch by epoch.

    Args:
      trainer: takes a step.
      plan: plan of the trained domains.
      settings: number of steps and epochs.
      progress: shows the number of steps done in an epoch.
      check_stop: called between steps; an exception that it raises ends them.
      describe_checkpoint: returns which checkpoint is kept, for error messages.
      max_unread: number of steps to queue before the loss of the first is read: reading
        it waits for the device, which would then be idle until the next step. If None,
        0 on a CPU and 2 on a GPU.

    Attributes:
      step: total number of steps taken.
      totals: losses and durations of the epoch so far; after `take`, of all its steps.
      pace: durations measured in this process.
    """

    def __init__(
        self,
        trainer: Trainer,
        plan: Plan,
        settings: RunConfig,
        *,
        progress: Progress,
        check_stop: Callable[[], None],
        describe_checkpoint: Callable[[], str],
        max_unread: int | None = None,
    ):
        if max_unread is None:
            has_gpu = bool(tf.config.list_logical_devices("GPU"))
            max_unread = _MAX_UNREAD_ON_GPU if has_gpu else 0
        self._max_unread = max_unread
        self._unread: collections.deque[_PendingStep] = collections.deque()
        self._trainer = trainer
        self._plan = plan
        self._settings = settings
        self._progress = progress
        self._check_stop = check_stop
        self._describe_checkpoint = describe_checkpoint
        self._skipped_steps = 0
        self.step = 0
        self.totals = EpochTotals(plan.names)
        self.pace = Pace()

    def resume(self, step: int, partial: PartialEpoch | None) -> None:
        """Continues from a checkpoint, whose variables have been restored.

        Args:
          step: total number of steps done.
          partial: totals of the epoch so far; None at its start.
        """
        self.step = step
        self.totals = EpochTotals(self._plan.names, partial)
        self._skipped_steps = self._trainer.skipped_steps()

    def begin_epoch(self) -> None:
        """Resets the totals for the next epoch."""
        self.totals = EpochTotals(self._plan.names)

    def take(self, batches: TrainingBatches, label: str, *, epochs: int) -> None:
        """Takes the remaining steps of an epoch.

        Args:
          batches: the batches, starting at the next step.
          label: name of the epoch.
          epochs: number of epochs done.

        Raises:
          StoppedError: if a loss is not finite, or memory does not suffice. Losses are
            checked even if the steps end for another reason, so that no step with a
            non-finite loss is saved.
          InputError: see `TrainingBatches.read` and `check_voxels`.
        """
        done = self.totals.num_steps
        total = max(done, self._settings.steps_per_epoch)
        steps = self._progress(
            range(done, total), label, total=total, initial=done, unit="step"
        )
        try:
            for _ in steps:
                # Not after the last step, since the epoch's checkpoint saves it.
                self._check_stop()
                if self._take_step(batches):
                    steps.unpause()
                if self.totals.num_steps:
                    steps.set_postfix(refresh=False, **self._progress_values(epochs))
            self._read_losses(batches)
        except Exception:
            # The caller may save these steps, so every loss must be checked first.
            self._read_losses(batches)
            raise

    def _take_step(self, batches: TrainingBatches) -> bool:
        """Takes a step; returns whether that included compilation."""
        started = time.perf_counter()
        batch = batches.read()
        received = time.perf_counter()
        domain_index = self.step % len(self._plan.domains)
        domain = self._trainer.domains[domain_index]
        compiled = not self._trainer.is_compiled(domain, batch)
        if compiled:
            logging.info("compiling the step of %s", self._plan.names[domain_index])
        step = self._trainer.start_step if self._max_unread else self._trainer.step
        with self._reporting_exhausted(self.step + 1, domain_index, batch):
            loss, scale = step(domain, batch), self._trainer.loss_scale
        self.step += 1
        pending = _PendingStep(
            step=self.step,
            domain_index=domain_index,
            batch=batch,
            loss=loss,
            scaling=scale.read() if scale is not None else None,
            seconds_waiting=received - started,
            seconds_starting=time.perf_counter() - received,
            compiled=compiled,
        )
        self._unread.append(pending)
        self._read_losses(batches, 0 if compiled else self._max_unread)
        return compiled

    def _read_losses(self, batches: TrainingBatches, num_left: int = 0) -> None:
        """Reads the losses of all steps but the last `num_left`, the oldest first."""
        while len(self._unread) > num_left:
            pending = self._unread.popleft()
            started = time.perf_counter()
            with self._reporting_exhausted(
                pending.step, pending.domain_index, pending.batch
            ):
                loss = float(pending.loss)
            seconds = pending.seconds_starting + time.perf_counter() - started
            name = self._plan.names[pending.domain_index]
            if pending.compiled:
                logging.info(
                    "compiled the step of %s in %s, including its first run",
                    name,
                    duration(seconds),
                )
            skipped = self._check_loss(loss, pending, batches)
            self.totals.add(
                name,
                loss,
                seconds_waiting=pending.seconds_waiting,
                seconds_computing=seconds,
                compiled=pending.compiled,
                skipped=skipped,
            )
            seconds += pending.seconds_waiting
            self.pace.add_step(seconds, compiled=pending.compiled)

    def _reporting_exhausted(
        self, step: int, domain_index: int, batch: Batch
    ) -> contextlib.AbstractContextManager[None]:
        """Reports that a step needs more memory than the device has."""

        def describe() -> tuple[str, str]:
            first, *_ = self._trainer.strategy.experimental_local_results(batch["case"])
            return (
                f"step {step}: expected enough memory for a step of "
                f"{self._plan.names[domain_index]}; {self._describe_checkpoint()}",
                hint_for_step(self._trainer.network, len(first)),
            )

        return reporting_exhausted(describe)

    def _progress_values(self, epochs: int) -> dict[str, object]:
        """Returns the values shown by the progress bar."""
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

    def _check_loss(
        self, loss: float, pending: _PendingStep, batches: TrainingBatches
    ) -> int:
        """Returns the number of skipped steps, 0 or 1.

        Raises:
          StoppedError: if the loss is not finite.
          InputError: if voxels that are not finite are the cause.
        """
        domain, batch = self._plan.names[pending.domain_index], pending.batch
        if not math.isfinite(loss):
            # Pending steps started from variables that may no longer be finite.
            self._unread.clear()
            batches.check_voxels(batch, pending.domain_index)
            raise StoppedError(
                f"step {pending.step}: expected a finite loss and gradient. Received: "
                f"{loss} in domain {domain}, cases "
                f"{', '.join(batches.cases_of(batch))}; {self._describe_checkpoint()}"
            )
        if pending.scaling is None:
            return 0
        total, scale = pending.scaling
        skipped = int(total) - self._skipped_steps
        self._skipped_steps += skipped
        if skipped:
            logging.info(
                "step %d skipped: a gradient of domain %s, cases %s, overflowed in "
                "float16; the loss is now scaled by %g",
                pending.step,
                domain,
                ", ".join(batches.cases_of(batch)),
                float(scale),
            )
        return skipped
