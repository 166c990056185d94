"""The steps of an epoch: batches, losses, and what is logged of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

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


class EpochSteps:
    """Takes the steps of one epoch after the other.

    Args:
      trainer: takes a step.
      plan: plan of the trained domains.
      settings: number of steps and epochs.
      progress: shows the number of steps done in an epoch.
      check_stop: called between two steps; an exception that it raises ends them.
      what_is_kept: says which checkpoint remains, for errors.

    Attributes:
      step: number of steps done in all.
      totals: losses and durations of the epoch so far.
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
    ):
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
          StoppedError: if a loss is not finite.
          InputError: as of `TrainingBatches.read` and `check_voxels`.
        """
        done = self.totals.num_steps
        total = max(done, self._settings.steps_per_epoch)
        steps = self._progress(
            range(done, total), label, total=total, initial=done, unit="step"
        )
        for _ in steps:
            # Not after the last step, which the epoch's checkpoint saves.
            self._check_stop()
            if self._take_step(batches):
                steps.unpause()
            steps.set_postfix(refresh=False, **self._shown(epochs))

    def _take_step(self, batches: TrainingBatches) -> bool:
        """Takes a step; returns whether it was compiled first."""
        started = time.perf_counter()
        batch = batches.read()
        received = time.perf_counter()
        turn = self.step % len(self._plan.domains)
        name, domain = self._plan.names[turn], self._trainer.domains[turn]
        compiled = not self._trainer.is_compiled(domain)
        if compiled:
            logging.info("compiling the step of %s", name)
        loss = self._trainer.step(domain, batch)
        computed = time.perf_counter()
        if compiled:
            text = duration(computed - received)
            logging.info("compiling the step of %s: %s, with its first run", name, text)
        self.step += 1
        skipped_before = self._skipped_steps
        self._check_loss(loss, turn, batches, batch)
        self.totals.add(
            name,
            loss,
            seconds_waiting=received - started,
            seconds_computing=computed - received,
            compiled=compiled,
            skipped=self._skipped_steps - skipped_before,
        )
        self.pace.add_step(computed - started, compiled=compiled)
        return compiled

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

    def _check_loss(
        self, loss: float, turn: int, batches: TrainingBatches, batch: Batch
    ) -> None:
        domain = self._plan.names[turn]
        if not math.isfinite(loss):
            batches.check_voxels(batch, turn)
            raise StoppedError(
                f"step {self.step}: expected a finite loss and gradient. Received: "
                f"{loss} in domain {domain}, cases "
                f"{', '.join(batches.cases_of(batch))}; {self._what_is_kept()}"
            )
        skipped, scale = self._trainer.skipped_steps(), self._trainer.loss_scale
        if scale is not None and skipped != self._skipped_steps:
            logging.info(
                "step %d skipped: a gradient of domain %s, cases %s, overflowed in "
                "float16; the loss is now scaled by %g",
                self.step,
                domain,
                ", ".join(batches.cases_of(batch)),
                scale.value.numpy(),
            )
        self._skipped_steps = skipped
