"""The run: epochs of steps, schedule, checkpoints, validation and the monitor."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from u2net_tf.config.training import RunningConfig
from u2net_tf.errors import StoppedError
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models import best
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.run_state import Logs, RunState
from u2net_tf.models.spec import ModelSpec
from u2net_tf.progress import Progress, silent
from u2net_tf.shards.manifest import Manifest
from u2net_tf.training import schedule
from u2net_tf.training.batches import Batch, TrainingBatches
from u2net_tf.training.epoch_metrics import EpochMetrics, EpochTotals
from u2net_tf.training.monitor import Monitor, to_logs
from u2net_tf.training.step import Trainer
from u2net_tf.training.training_data import hash_records
from u2net_tf.training.validation import validate
from u2net_tf.wording import quantity


class Run:
    """One training run, from its last checkpoint to its end.

    Args:
      trainer: takes the steps; says which domains are trained.
      spec: specification of the network.
      manifests: manifests of the trained domains' shards, in the order of
        `trainer.domains`.
      config: settings of the run.
      identity: further settings that a run must have in common with the one that it
        resumes.
      progress: shows the number of steps done in an epoch.

    Attributes:
      model_dir: the run's folder.
      step: number of steps done.
      state: state of the schedule.
      minutes: duration of this process's part of the run; `runs.finish` sets it.
    """

    def __init__(
        self,
        trainer: Trainer,
        spec: ModelSpec,
        manifests: Sequence[Manifest],
        config: RunningConfig,
        identity: Mapping[str, Any] | None = None,
        *,
        progress: Progress = silent,
    ):
        self._trainer = trainer
        self._plan = dataclasses.replace(
            spec.plan, domains=tuple(spec.plan.domains[i] for i in trainer.domains)
        )
        self._manifests = manifests
        self._data = config.data
        self._records = hash_records(self._plan, manifests)
        self._rule = config.schedule
        self._settings = config.run
        self._checkpoints = Checkpoints(
            config.run.model_dir,
            spec,
            trainer.network,
            trainer.variables_by_path(),
            keep=config.run.keep,
            invariants={
                "precision": trainer.network.dtype_policy.name,
                "trained domains": list(self._plan.names),
                "shared variables": trainer.train_shared,
                "fold": config.data.fold,
                **(identity or {}),
            },
        )
        self._predictor = Predictor(
            KerasBackend(trainer.network, spec), progress=progress
        )
        self._progress = progress
        self.model_dir = pathlib.Path(config.run.model_dir)
        self.minutes = 0.0
        self._batches: TrainingBatches | None = None
        self.step = 0
        self.state = schedule.initial_state(config.optimizer.learning_rate)
        self._last_logs: Logs | None = None
        self._skipped_steps = 0

    def log_devices(self) -> None:
        """Logs the number of trained parameters, and the devices."""
        trained, held = (
            f"{sum(variable.shape.num_elements() for variable in variables):,}"
            for variables in (
                self._trainer.trained_variables,
                self._trainer.network.trainable_variables,
            )
        )
        gpus = tf.config.list_logical_devices("GPU")
        logging.info(
            "%s, %s of %s parameters, %s, devices: %s",
            quantity(len(self._plan.domains), "domain"),
            trained,
            held,
            quantity(self._trainer.strategy.num_replicas_in_sync, "replica"),
            ", ".join(device.name for device in gpus) or "CPU",
        )

    def restore(self) -> bool:
        """Restores the newest checkpoint; returns whether one was found.

        Raises:
          InputError: if the folder holds a checkpoint of another model.
        """
        saved = self._checkpoints.restore()
        if saved is None:
            return False
        if saved.records not in (None, self._records):
            logging.warning(
                "%s: the shards are not those that this run was trained on before: its "
                "result will differ from that of an uninterrupted run",
                self._data.data_dir,
            )
        self._last_logs = saved.logs
        self.step = saved.step
        if saved.schedule is not None:
            self.state = schedule.resumed(self._rule, saved.schedule)
        logging.info(
            "resuming from step %d (epoch %d), learning rate %.2g",
            self.step,
            self.state.epochs,
            self.state.learning_rate,
        )
        self._skipped_steps = self._trainer.skipped_steps()
        return True

    def open_input(self) -> None:
        """Builds the input pipeline, starting at the restored step.

        Nothing is written, so that a run that is refused here leaves no folder behind.

        Raises:
          InputError: as of `TrainingBatches`.
        """
        if not self._ended():
            self._opened_input()

    def train(self) -> None:
        """Trains until the schedule or `max_epochs` ends the run.

        Raises:
          StoppedError: if the loss or a variable is not finite.
          InputError: if a shard cannot be read.
        """
        monitor = Monitor(self._settings.model_dir, self._plan, first_step=self.step)
        if self._last_logs is not None and monitor.last_step < self.step:
            # The run was killed between saving the epoch and logging it.
            monitor.write(self._last_logs)
        self._trainer.set_learning_rate(self.state.learning_rate)
        while not self._ended():
            metrics = self._run_epoch(self._opened_input())
            logs = to_logs(metrics)
            self._save(metrics, logs)
            monitor.write(logs)
            self._trainer.set_learning_rate(self.state.learning_rate)
        monitor.close()

    def _opened_input(self) -> TrainingBatches:
        if self._batches is None:
            self._batches = TrainingBatches(
                self._plan,
                self._manifests,
                self._data,
                self._trainer.strategy,
                first_step=self.step,
            )
        return self._batches

    def _ended(self) -> bool:
        limit = self._settings.max_epochs
        return self.state.finished or (limit > 0 and self.state.epochs >= limit)

    def _run_epoch(self, batches: TrainingBatches) -> EpochMetrics:
        epoch, rate = self.state.epochs + 1, self.state.learning_rate
        limit = self._settings.max_epochs
        label = f"epoch {epoch} of {limit}" if limit else f"epoch {epoch}"
        skipped_before = self._skipped_steps
        totals = EpochTotals(self._plan.names)
        steps = self._progress(
            range(self._settings.steps_per_epoch), label, unit="step"
        )
        for _ in steps:
            loss = self._take_step(batches, totals)
            steps.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.state = schedule.advance(self._rule, self.state, totals.loss())
        self._check_variables()
        is_scaled = self._trainer.loss_scale is not None
        # After an epoch there is one.
        assert self.state.moving_average is not None
        metrics = EpochMetrics(
            epoch=epoch,
            step=self.step,
            loss=totals.loss(),
            loss_moving_average=self.state.moving_average,
            learning_rate=rate,
            seconds_per_step=totals.seconds_per_step(),
            input_wait_share=totals.input_wait_share(),
            loss_by_domain=totals.loss_by_domain(),
            skipped_steps=self._skipped_steps - skipped_before if is_scaled else None,
            dice=self._validate(epoch),
        )
        logging.info("%s: %s", label, metrics.summary())
        return metrics

    def _take_step(self, batches: TrainingBatches, totals: EpochTotals) -> float:
        """Takes a step and returns its loss."""
        started = time.perf_counter()
        batch = batches.read()
        received = time.perf_counter()
        turn = self.step % len(self._plan.domains)
        batches.check(batch, turn)
        loss = self._trainer.step(self._trainer.domains[turn], batch)
        computed = time.perf_counter()
        self.step += 1
        self._check_loss(loss, turn, batches, batch)
        totals.add(
            self._plan.names[turn],
            loss,
            seconds_waiting=received - started,
            seconds_computing=computed - received,
        )
        return loss

    def _validate(self, epoch: int) -> dict[str, dict[str, float]]:
        every = self._settings.validate_every_epochs
        if not every or epoch % every:
            return {}
        return validate(
            self._predictor,
            dict(zip(self._trainer.domains, self._manifests, strict=True)),
            data_dir=self._data.data_dir,
            num_cases=self._settings.eval_cases,
        )

    def _save(self, metrics: EpochMetrics, logs: Logs) -> None:
        state = RunState(
            step=self.step, schedule=self.state, logs=logs, records=self._records
        )
        validated = [
            domain.name
            for domain in self._plan.domains
            if self._settings.validate_every_epochs
            and domain.monitored_split == "validation"
        ]
        candidate = best.candidate(
            self.step,
            loss_moving_average=metrics.loss_moving_average,
            dice=metrics.dice,
            domains=validated,
        )
        self._checkpoints.save(state, candidate)

    def _check_loss(
        self, loss: float, turn: int, batches: TrainingBatches, batch: Batch
    ) -> None:
        domain = self._plan.names[turn]
        if not math.isfinite(loss):
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

    def _check_variables(self) -> None:
        """A gradient that is not finite shows in the variables, not yet in the loss."""
        for variable in self._trainer.network.trainable_variables:
            if not np.isfinite(variable.numpy()).all():
                # Without Keras' name of the network.
                layer = variable.path.partition("/")[2] or variable.path
                raise StoppedError(
                    f"step {self.step}: expected finite variables. Received: others "
                    f"in the layer {layer}; {self._what_is_kept()}"
                )

    def _what_is_kept(self) -> str:
        folder = self._settings.model_dir
        if self._checkpoints.newest() is None:
            return f"there is no checkpoint in {folder} yet"
        return f"the last good checkpoint in {folder} is kept"
