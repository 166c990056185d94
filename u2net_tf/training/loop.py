"""The run: epochs of steps, schedule, checkpoints, validation and the monitor."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from u2net_tf.config.training import RunningConfig
from u2net_tf.errors import StoppedError
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.input.pipeline import training_dataset
from u2net_tf.models import best
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.run_state import RunState
from u2net_tf.models.spec import ModelSpec
from u2net_tf.progress import Progress, silent
from u2net_tf.shards import reading
from u2net_tf.shards.manifest import Manifest
from u2net_tf.training import schedule
from u2net_tf.training.monitor import Monitor
from u2net_tf.training.step import Trainer
from u2net_tf.training.validation import validate
from u2net_tf.wording import quantity


class Run:
    """One training run, from its last checkpoint to its end.

    Args:
      trainer: takes the steps; says which domains are trained.
      spec: what the network is.
      manifests: of the trained domains' shards, in the order of `trainer.domains`.
      config: settings of the run.
      identity: what else a run that goes on must have in common with this one.
      progress: shows how many steps of an epoch are done.

    Attributes:
      model_dir: the run's folder.
      step: steps done.
      state: where the schedule stands.
      minutes: how long `runs.finish` has trained in this process.
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
        self._training_cases = [frozenset(d.train) for d in self._plan.domains]
        self._records = self._hash_records()
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
        self._batches: Iterator | None = None
        self.step = 0
        self.state = schedule.start(config.optimizer.learning_rate)
        self._last_row: dict[str, float] | None = None
        # Steps left out so far, for float16.
        self._left_out = 0

    def log_devices(self) -> None:
        """Tells what is trained and on what."""
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
        if saved is not None:
            self._warn_of_other_records(saved.records)
            self._last_row = saved.row
            self.step = saved.step
            self.state = schedule.resumed(self._rule, saved.schedule)
            logging.info(
                "resuming from step %d (epoch %d), learning rate %.2g",
                self.step,
                self.state.epochs,
                self.state.learning_rate,
            )
            if self._trainer.loss_scale is not None:
                self._left_out = int(self._trainer.loss_scale.steps_left_out.numpy())
        return saved is not None

    def open_input(self) -> None:
        """Builds the input pipeline, from the step that was restored on.

        Nothing is written, so that a run that is refused here leaves no folder behind.

        Raises:
          InputError: if there are no training cases, a shard is missing or the
            augmentation cannot be done.
        """
        self._batches = self._make_batches() if not self._ended() else iter(())

    def train(self) -> None:
        """Trains from where it stands until the schedule or `max_epochs` ends it.

        Raises:
          StoppedError: if the loss or a variable is not finite.
          InputError: if a shard cannot be read.
        """
        if self._batches is None:
            self.open_input()
        monitor = Monitor(self._settings.model_dir, self._plan, first_step=self.step)
        if self._last_row is not None and monitor.last_step < self.step:
            # The run was killed between saving the epoch and writing its row.
            monitor.write(self._last_row)
        self._trainer.set_learning_rate(self.state.learning_rate)
        while not self._ended():
            row = self._run_epoch(self._batches)
            self._save(row)
            monitor.write(row)
            self._trainer.set_learning_rate(self.state.learning_rate)
        monitor.close()

    def _save(self, row: dict[str, float]) -> None:
        state = RunState(
            step=self.step, schedule=self.state, row=row, records=self._records
        )
        watched = [
            domain.name
            for domain in self._plan.domains
            if self._settings.validate_every_epochs
            and domain.watched_split == "validation"
        ]
        self._checkpoints.save(state, best.candidate(row, domains=watched))

    def _hash_records(self) -> str:
        """Hash of the records that are trained on, and of their order on disk."""
        rows = [
            [domain.name, entry.shard, entry.case, entry.checksum]
            for domain, manifest in zip(
                self._plan.domains, self._manifests, strict=True
            )
            for entry in manifest.entries(domain.train)
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def _warn_of_other_records(self, before: str | None) -> None:
        if before not in (None, self._records):
            logging.warning(
                "%s: the shards are not those that this run was trained on before: it "
                "will not end as it would have with them",
                self._data.data_dir,
            )

    def _ended(self) -> bool:
        limit = self._settings.max_epochs
        return self.state.finished or (limit > 0 and self.state.epochs >= limit)

    def _make_batches(self) -> Iterator:
        dataset = training_dataset(
            self._plan.domains,
            self._manifests,
            self._data,
            first_step=self.step,
        )
        strategy = self._trainer.strategy
        if strategy.num_replicas_in_sync > 1:
            # Names of cases are strings and cannot go to a GPU.
            options = tf.distribute.InputOptions(experimental_fetch_to_device=False)
            dataset = strategy.experimental_distribute_dataset(dataset, options)
        return iter(dataset)

    def _run_epoch(self, batches: Iterator) -> dict[str, float]:
        """Runs one epoch and returns its row of `training.csv`."""
        names = self._plan.names
        losses: dict[str, list[float]] = {name: [] for name in names}
        waited = busy = 0.0
        left_out = self._left_out
        epoch = self.state.epochs + 1
        label = f"epoch {epoch}" + (
            f" of {self._settings.max_epochs}" if self._settings.max_epochs else ""
        )
        steps = self._progress(
            range(self._settings.steps_per_epoch), label, unit="step"
        )
        for _ in steps:
            started = time.perf_counter()
            with reading.translate_tf_errors(self._data.data_dir, self._manifests):
                batch = next(batches)
            received = time.perf_counter()
            turn = self.step % len(names)
            reading.check_cases(
                self._data.data_dir,
                names[turn],
                self._cases(batch),
                self._training_cases[turn],
            )
            loss = self._trainer.step(self._trainer.domains[turn], batch)
            busy += time.perf_counter() - received
            waited += received - started
            self.step += 1
            self._check_loss(loss, names[turn], batch)
            losses[names[turn]].append(loss)
            steps.set_postfix(loss=f"{loss:.3f}", refresh=False)
        mean = float(np.mean([loss for values in losses.values() for loss in values]))
        rate = self.state.learning_rate
        self.state = schedule.advance(self._rule, self.state, mean)
        self._check_variables()
        row = {
            "epoch": epoch,
            "step": self.step,
            "loss": mean,
            "loss_moving_average": self.state.moving_average,
            "learning_rate": rate,
            "seconds_per_step": (waited + busy) / self._settings.steps_per_epoch,
            "input_wait_share": waited / (waited + busy),
        }
        if self._trainer.loss_scale is not None:
            row["steps_left_out"] = self._left_out - left_out
        for name, values in losses.items():
            row[f"loss/{name}"] = float(np.mean(values)) if values else math.nan
        every = self._settings.validate_every_epochs
        if every and epoch % every == 0:
            row |= validate(
                self._predictor,
                dict(zip(self._trainer.domains, self._manifests, strict=True)),
                data_dir=self._data.data_dir,
                num_cases=self._settings.eval_cases,
            )
        logging.info("%s: %s", label, _sentence(row))
        return row

    def _check_loss(self, loss: float, domain: str, batch) -> None:
        if not math.isfinite(loss):
            raise StoppedError(
                f"step {self.step}: expected a finite loss and gradient. Received: "
                f"{loss} in domain {domain}, cases {self._listed(batch)}; "
                f"{self._what_is_kept()}"
            )
        scale = self._trainer.loss_scale
        if scale is None or int(scale.steps_left_out.numpy()) == self._left_out:
            return
        self._left_out = int(scale.steps_left_out.numpy())
        logging.info(
            "step %d left out: a gradient of domain %s, cases %s, overflows in "
            "float16; the loss is now scaled by %g",
            self.step,
            domain,
            self._listed(batch),
            scale.value.numpy(),
        )

    def _listed(self, batch) -> str:
        return ", ".join(sorted(self._cases(batch)))

    def _cases(self, batch) -> set[str]:
        local = self._trainer.strategy.experimental_local_results(batch["case"])
        return {case.decode() for part in local for case in part.numpy()}

    def _check_variables(self) -> None:
        """A gradient that is not finite shows in the variables, not yet in the loss."""
        for variable in self._trainer.network.trainable_variables:
            if not np.isfinite(variable.numpy()).all():
                raise StoppedError(
                    f"step {self.step}: expected finite variables. Received: others "
                    f"in the layer {_layer(variable)}; {self._what_is_kept()}"
                )

    def _what_is_kept(self) -> str:
        folder = self._settings.model_dir
        if self._checkpoints.newest() is None:
            return f"there is no checkpoint in {folder} yet"
        return f"the last good checkpoint in {folder} is kept"


def _layer(variable) -> str:
    """Where a variable stands, without Keras's name for the network."""
    return variable.path.partition("/")[2] or variable.path


def _sentence(row: dict[str, float]) -> str:
    text = (
        f"step {row['step']}, loss {row['loss']:.4f} (moving average "
        f"{row['loss_moving_average']:.4f}), learning rate {row['learning_rate']:.2g}, "
        f"{row['seconds_per_step']:.2f} s per step, "
        f"{100 * row['input_wait_share']:.0f} % of it waiting for data"
    )
    scores = [
        f"{key.removeprefix('dice/')} {value:.3f}"
        for key, value in row.items()
        if key.startswith("dice/")
    ]
    return text + (f"; Dice: {', '.join(scores)}" if scores else "")
