"""A training run: epochs, schedule, checkpoints, validation and logging."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from u2net_tf.config.training import RunningConfig
from u2net_tf.errors import StoppedEarlyError, StoppedError
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models import best
from u2net_tf.models.run_state import Logs, RunState, SeenCases
from u2net_tf.models.spec import ModelSpec
from u2net_tf.models.variables import first_not_finite
from u2net_tf.progress import Progress, silent
from u2net_tf.shards.manifest import Manifest
from u2net_tf.training import schedule
from u2net_tf.training.batches import TrainingBatches
from u2net_tf.training.domain_losses import warn_of_changed_regions
from u2net_tf.training.epoch_metrics import EpochMetrics
from u2net_tf.training.epoch_steps import EpochSteps
from u2net_tf.training.monitor import to_logs
from u2net_tf.training.run_folder import open_run_folder
from u2net_tf.training.run_shards import RunShards
from u2net_tf.training.step import Trainer
from u2net_tf.training.stop_requests import StopRequested, StopRequests
from u2net_tf.training.strategy import workers_of
from u2net_tf.training.training_data import hash_records, warn_if_changed
from u2net_tf.training.validation import InterruptibleBackend, validate
from u2net_tf.training.worker_agreement import require_same_run
from u2net_tf.wording import duration, quantity


class Run:
    """One training run, from its last checkpoint to its end.

    Args:
      trainer: takes the steps and determines which domains are trained.
      spec: specification of the network.
      manifests: manifests of the trained domains' shards, in the order of
        `trainer.domains`.
      config: settings of the run.
      invariants: additional settings that must not change when a run is resumed.
      progress: shows the number of steps done in an epoch.
      stop: requests to stop early; none if None.

    Attributes:
      workers: the workers of the run.
      model_dir: the run's folder.
      state: state of the schedule.
      initial_cases: see `RunState`.
      minutes: duration of this process's part of the run, set by `runs.finish`.
    """

    def __init__(
        self,
        trainer: Trainer,
        spec: ModelSpec,
        manifests: Sequence[Manifest],
        config: RunningConfig,
        invariants: Mapping[str, Any] | None = None,
        *,
        progress: Progress = silent,
        stop: StopRequests | None = None,
    ):
        self._trainer = trainer
        self._plan = dataclasses.replace(
            spec.plan, domains=tuple(spec.plan.domains[i] for i in trainer.domains)
        )
        self._config = config
        self._shards = RunShards(self._plan, manifests, config)
        self._records = hash_records(self._plan, manifests)
        self._num_replicas = trainer.strategy.num_replicas_in_sync
        self.workers = workers_of(trainer.strategy)
        self._settings = config.run
        self._folder = open_run_folder(
            trainer, spec, self._plan, config, invariants, self.workers
        )
        self._stop = stop or StopRequests()
        backend = InterruptibleBackend(trainer.network, spec, self._stop.check)
        self._predictor = Predictor(backend, progress=progress)
        self._steps = EpochSteps(
            trainer,
            self._plan,
            self._settings,
            progress=progress,
            check_stop=functools.partial(self._stop.check_all, self.workers),
            describe_checkpoint=self._folder.describe_checkpoint,
        )
        self.model_dir = self._folder.path
        self.minutes = 0.0
        self._batches: TrainingBatches | None = None
        self.state = schedule.initial_state(config.optimizer.learning_rate)
        self.initial_cases: tuple[SeenCases, ...] = ()
        self._last_logs: Logs | None = None

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self._steps.step

    def log_devices(self) -> None:
        """Logs the numbers of domains and parameters, and the devices."""
        trained, total = (
            f"{sum(variable.shape.num_elements() for variable in variables):,}"
            for variables in (
                self._trainer.trained_variables,
                self._trainer.network.trainable_variables,
            )
        )
        gpus = tf.config.list_logical_devices("GPU")
        logging.info(
            "%s, training %s of %s parameters, %s, devices: %s",
            quantity(len(self._plan.domains), "domain"),
            trained,
            total,
            quantity(self._num_replicas, "replica"),
            ", ".join(device.name for device in gpus) or "CPU",
        )

    def restore(self) -> bool:
        """Restores the newest checkpoint; returns whether one was found.

        Raises:
          InputError: if the folder contains a checkpoint of a different model.
        """
        saved = self._folder.restore()
        if saved is None:
            return False
        data_dir = self._config.data.data_dir
        warn_if_changed(saved, self._records, self._num_replicas, data_dir=data_dir)
        self._last_logs = saved.logs
        self.initial_cases = saved.initial_cases
        self._steps.resume(saved.step, saved.partial_epoch)
        if saved.schedule is not None:
            self.state = schedule.resumed(self._config, saved.schedule)
        if not self.has_ended:
            warn_of_changed_regions(self._config, self._folder.saved_plan, self._plan)
        logging.info(
            "resuming from step %d (%s), learning rate %.2g",
            self.step,
            self._position(),
            self.state.learning_rate,
        )
        return True

    def open_input(self) -> None:
        """Builds the input pipeline, starting at the restored step.

        Writes nothing, so that a run that is rejected here leaves no folder behind.

        Raises:
          InputError: see `require_same_run`, `TrainingBatches` and `RunShards`.
        """
        require_same_run(
            self.workers,
            self._trainer,
            self._config,
            step=self.step,
            records=self._records,
            plan=self._plan,
        )
        if not self.has_ended:
            self._opened_input()

    def train(self) -> None:
        """Trains until the schedule or `max_epochs` ends the run.

        Raises:
          StoppedEarlyError: if the run was asked to stop; its last step is saved.
          StoppedError: if the loss or a variable is not finite.
          InputError: see `TrainingBatches.read`, `validate` and `RunShards`.
        """
        # An epoch that was interrupted has no row yet.
        last_row = self.step - self._steps.totals.num_steps
        with (
            self._stop.deferring_signals(),
            self._folder.logging_epochs(last_row, self._last_logs),
        ):
            self._trainer.set_learning_rate(self.state.learning_rate)
            self._trainer.averages.start()
            try:
                while not self.has_ended:
                    self._run_epoch()
                # The chief may have been stopped while it validated.
                self._stop.check_all(self.workers, ignore_own=True)
            except StopRequested as request:
                raise self._stopped_early(request) from None

    def _opened_input(self) -> TrainingBatches:
        if self._batches is None:
            self._batches = TrainingBatches(
                self._plan,
                self._shards,
                self._config.data,
                self._trainer.strategy,
                first_step=self.step,
            )
        return self._batches

    @property
    def has_ended(self) -> bool:
        """Whether the schedule or `max_epochs` has ended the run."""
        return self.state.finished or 0 < self._settings.max_epochs <= self.state.epochs

    def _run_epoch(self) -> None:
        """Takes the remaining steps of an epoch; saves a checkpoint and logs."""
        epoch, rate = self.state.epochs + 1, self.state.learning_rate
        limit = self._settings.max_epochs
        label = f"epoch {epoch} of {limit}" if limit else f"epoch {epoch}"
        self._steps.take(self._opened_input(), label, epochs=self.state.epochs)
        self._check_variables()
        dice = self._validate(epoch)
        totals = self._steps.totals
        self.state = schedule.advance(self._config, self.state, totals.loss())
        is_scaled = self._trainer.loss_scale is not None
        # Set after every epoch.
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
            seconds_compiling=totals.seconds_compiling,
            skipped_steps=totals.skipped_steps if is_scaled else None,
            dice=dice,
        )
        self._last_logs = to_logs(metrics)
        self._steps.begin_epoch()
        self._save(self._best_candidate(metrics))
        self._folder.log(self._last_logs)
        if self.workers.is_chief:
            logging.info("%s: %s", label, metrics.summary())
        self._trainer.set_learning_rate(self.state.learning_rate)

    def _validate(self, epoch: int) -> dict[str, dict[str, float]]:
        every = self._settings.validate_every_epochs
        if not every or epoch % every or not self.workers.is_chief:
            return {}
        shards = dict(zip(self._trainer.domains, self._shards.monitored, strict=True))
        started = time.perf_counter()
        try:
            with self._trainer.averages.in_use():
                dice = validate(
                    self._predictor, shards, num_cases=self._settings.eval_cases
                )
        except StopRequested:
            # The other workers have not heard of it.
            self._stop.check_all(self.workers)
            raise
        seconds = self._steps.pace.seconds_validating = time.perf_counter() - started
        logging.info("validation after epoch %d: %s", epoch, duration(seconds))
        return dice

    def _best_candidate(self, metrics: EpochMetrics) -> best.Best | None:
        validated = {
            domain.name: [label.name for label in domain.labels[1:]]
            for domain in self._plan.domains
            if self._settings.validate_every_epochs
            and domain.monitored_split == "validation"
        }
        return best.candidate(
            self.step,
            loss_moving_average=metrics.loss_moving_average,
            dice=metrics.dice,
            classes=validated,
        )

    def _save(self, candidate: best.Best | None = None) -> None:
        # Only what was learned from the shards that the manifest describes is saved.
        self._shards.check_unchanged()
        totals = self._steps.totals
        state = RunState(
            step=self.step,
            schedule=self.state,
            logs=self._last_logs,
            partial_epoch=totals.to_partial() if totals.num_steps else None,
            records=self._records,
            num_replicas=self._num_replicas,
            initial_cases=self.initial_cases,
        )
        self._folder.save(state, candidate)

    def _stopped_early(self, request: StopRequested) -> StoppedEarlyError:
        """Saves unsaved steps; returns the error to raise."""
        if self.step != self._folder.saved_step:
            self._check_variables()
            self._save()
        # The chief has saved it now.
        self.workers.wait()
        kept = f"step {self.step} ({self._position()}) is saved in {self.model_dir}"
        if not self.step:
            kept = f"no step was taken, and {self._folder.describe_checkpoint()}"
        return StoppedEarlyError(
            f"stopped by {request.reason}: {kept}; rerun the same command to resume",
            exit_status=request.exit_status,
        )

    def _position(self) -> str:
        """Returns "epoch 3" or, within an epoch, "step 7 of epoch 4"."""
        epochs, within = self.state.epochs, self._steps.totals.num_steps
        return f"step {within} of epoch {epochs + 1}" if within else f"epoch {epochs}"

    def _check_variables(self) -> None:
        """Checks for variables that are not finite, which the loss may not show yet."""
        if layer := first_not_finite(self._trainer.network.trainable_variables):
            raise StoppedError(
                f"step {self.step}: expected finite variables. Received: NaN or "
                f"infinity in the layer {layer}; {self._folder.describe_checkpoint()}"
            )
