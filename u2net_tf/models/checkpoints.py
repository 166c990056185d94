"""Saves and restores runs: variables, optimizers, state and specification."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from absl import logging

from u2net_tf import files, migrations
from u2net_tf.errors import InputError
from u2net_tf.models import checkpoint_paths, checkpoint_reading, checkpoint_writing
from u2net_tf.models.best import Best
from u2net_tf.models.checkpoint_index import DamagedCheckpointError
from u2net_tf.models.checkpoint_paths import list_checkpoints, step_of
from u2net_tf.models.checkpoint_reading import (
    CheckpointReader,
    read_newest_intact,
)
from u2net_tf.models.run_state import RunState, state_to_json
from u2net_tf.models.spec import ModelSpec, check_same_spec, spec_to_json
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.plan.domains import Plan


class Checkpoints:
    """Saves and restores a training run.

    The folder is not created before the first checkpoint is written.

    Args:
      model_dir: the run's folder.
      spec: specification of the network.
      network: the network, built.
      training: path -> variable, of the optimizers and of loss scaling; empty for a
        model that is not trained. With the path of a variable of the network, it is
        saved instead of that variable.
      keep: number of end-of-epoch checkpoints to keep in addition to the best one. A
        checkpoint within an epoch is kept until the next one is written.
      invariants: settings that must be the same when a run is resumed, for example
        {"precision": "float32"}; JSON.

    Attributes:
      restored_plan: plan of the checkpoint that was restored; None if none was.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike,
        spec: ModelSpec,
        network: DomainModel,
        training: Mapping[str, Any],
        *,
        keep: int,
        invariants: Mapping[str, Any] | None = None,
    ):
        self._spec = spec
        self._invariants = dict(invariants or {})
        self._is_trained = bool(training)
        self._keep = keep
        self.restored_plan: Plan | None = None
        self._best: Best | None = None
        # Step of the newest checkpoint if it was written within an epoch.
        self._within_epoch: int | None = None
        self._variables = {**network_paths(network), **training}
        self._folder = checkpoint_paths.checkpoint_folder(model_dir)
        checkpoint_paths.remove_leftovers(self._folder)

    def save(self, state: RunState, candidate: Best | None = None) -> str:
        """Writes a checkpoint atomically and removes older ones.

        Args:
          state: step, schedule, logs and records; the other fields are filled in here.
          candidate: the measure of this checkpoint; None if it cannot be the best.

        Returns:
          The checkpoint's path.

        Raises:
          OSError: if it or its folder cannot be written, for example on a full disk.
            Older checkpoints are then kept, and no empty folder is left behind.
        """
        best = self._best
        if candidate is not None and candidate.beats(best):
            best = candidate
        state = dataclasses.replace(state, invariants=self._invariants, best=best)
        created = files.make_folder(self._folder)
        try:
            path = checkpoint_writing.write(
                spec_to_json(self._spec),
                state_to_json(state),
                self._variables,
                self._folder,
                state.step,
            )
        except OSError:
            files.remove_empty(created)
            raise
        self._best = best
        self._remove_others(state)
        self._within_epoch = _step_within_epoch(state)
        return path

    def newest(self) -> str | None:
        """Returns the path of the newest checkpoint; None if there is none yet."""
        paths = list_checkpoints(self._folder)
        return paths[-1] if paths else None

    def restore(self) -> RunState | None:
        """Restores the newest checkpoint that is not damaged.

        If the best checkpoint is damaged, a warning is logged and the next candidate
        becomes the best.

        Returns:
          The state that was saved with it; None if there is no checkpoint.

        Raises:
          InputError: if it has a different plan or network, or all are damaged.
        """
        paths = list_checkpoints(self._folder)[::-1]
        if not paths:
            return None
        restored, state = read_newest_intact(paths, self._restore)
        self._best = state.best
        self._within_epoch = _step_within_epoch(state)
        # The restored checkpoint has just been read.
        if state.best is not None and state.best.step != step_of(restored):
            found = [path for path in paths if step_of(path) == state.best.step]
            # It may have been removed for a later best one that is damaged now.
            if not found or _is_damaged_best(found[0]):
                self._best = None
        return state

    def _restore(self, path: str) -> tuple[str, RunState]:
        reader = CheckpointReader(path)
        state, spec = reader.state(), reader.spec()
        was_trained = reader.has_optimizers()
        try:
            check_same_spec(self._spec, spec)
            self._check_same_run(state, was_trained)
        except InputError as error:
            raise error.within(
                path,
                hint="Use another `model_dir`, or the plan and settings that this "
                "model was trained with",
            ) from None
        reader.restore(self._variables)
        self.restored_plan = spec.plan
        return path, state

    def _check_same_run(self, state: RunState, was_trained: bool) -> None:
        """Raises InputError, with an empty `where`, if the saved run does not match."""
        if self._is_trained and not was_trained:
            raise InputError(
                "",
                expected="a trained model",
                received="a composed one, from which training cannot resume",
            )
        own = RunState(invariants=self._invariants).known_invariants
        for name, value in state.known_invariants.items():
            if own.get(name) != value:
                raise InputError("", expected=f"{name} {own.get(name)}", received=value)

    def _remove_others(self, saved: RunState) -> None:
        """Removes all checkpoints except the saved one, the last `keep` and the best.

        Later ones are damaged, or the run would have resumed from them.
        """
        paths = {step_of(path): path for path in list_checkpoints(self._folder)}
        end_of_epoch = [
            step for step in paths if step < saved.step and step != self._within_epoch
        ]
        if saved.partial_epoch is None:
            end_of_epoch.append(saved.step)
        kept = {saved.step, *end_of_epoch[-self._keep :]}
        if self._best is not None:
            kept.add(self._best.step)
        checkpoint_paths.remove(
            [path for step, path in paths.items() if step not in kept]
        )
        for name in migrations.OBSOLETE_IN_CHECKPOINTS:
            (self._folder / name).unlink(missing_ok=True)


def _step_within_epoch(state: RunState) -> int | None:
    return None if state.partial_epoch is None else state.step


def network_paths(network: DomainModel) -> dict[str, Any]:
    """Returns path in a checkpoint -> variable, for a network."""
    return {f"network/{path}": v for path, v in network.variables_by_path().items()}


def _is_damaged_best(path: str) -> bool:
    """Returns whether the best checkpoint is damaged; logs a warning if so."""
    try:
        checkpoint_reading.check_intact(path)
    except DamagedCheckpointError as error:
        logging.warning(
            "%s; it was the best one, and the next candidate replaces it", error
        )
        return True
    return False
