"""Checkpoints: variables, optimizers, the state of the run, and the plan, in one.

A checkpoint needs nothing beside it: `load_network` builds the network from what lies
inside.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from u2net_tf import migrations
from u2net_tf.errors import InputError
from u2net_tf.models import checkpoint_files
from u2net_tf.models.best import Best
from u2net_tf.models.checkpoint_files import (
    NEWEST,
    DamagedCheckpointError,
    candidates,
    checkpoint_folder,
    first_whole,
    listed,
    read_spec,
    read_state,
    step_of,
)
from u2net_tf.models.run_state import RunState, state_to_json
from u2net_tf.models.spec import ModelSpec, build_network, check_same_spec, spec_to_json


class Checkpoints:
    """Saves and restores one training run.

    Args:
      model_dir: the run's folder.
      spec: what the network is.
      network: the network, built.
      training: path -> variable, of optimizers and of what else changes with their
        steps; empty for a model that is not trained.
      keep: number of checkpoints to keep; the best one is kept besides.
      invariants: what a run must have in common with the one that it resumes, for
        example {"precision": "float32"}; JSON.

    Nothing is written before the first checkpoint.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike,
        spec: ModelSpec,
        network,
        training: Mapping[str, Any],
        *,
        keep: int,
        invariants: Mapping[str, Any] | None = None,
    ):
        self._spec = spec
        self._invariants = dict(invariants or {})
        self._is_trained = bool(training)
        self._keep = keep
        self._best: Best | None = None
        self._variables = {**_on_disk(network), **training}
        self._folder = checkpoint_folder(model_dir)
        checkpoint_files.remove_leftovers(self._folder)

    def save(self, state: RunState, candidate: Best | None = None) -> str:
        """Writes a checkpoint, whole or not at all, and removes those not to keep.

        Args:
          state: step, schedule and row; the rest of it is filled in here.
          candidate: why this checkpoint may be the best; None if it may not.

        Returns:
          The checkpoint's path.

        Raises:
          OSError: if it or its folder cannot be written, for example on a full disk.
            The older checkpoints stay.
        """
        best = self._best
        if candidate is not None and candidate.beats(best):
            best = candidate
        state = dataclasses.replace(state, invariants=self._invariants, best=best)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            path = checkpoint_files.write(
                spec_to_json(self._spec),
                state_to_json(state),
                self._variables,
                self._folder,
                state.step,
            )
        except tf.errors.OpError as error:
            raise OSError(
                f"{self._folder}: cannot write a checkpoint: {error.message}"
            ) from error
        self._best = best
        self._sweep(state.step)
        return path

    def newest(self) -> str | None:
        """Path of the newest checkpoint; None if there is none yet."""
        return (listed(self._folder) or [None])[-1]

    def restore(self) -> RunState | None:
        """Restores the newest checkpoint that is not damaged.

        If the best one is damaged, that is logged, and the next becomes the best.

        Returns:
          The state that was saved with it; None if there is no checkpoint.

        Raises:
          InputError: if it was made with another plan or network, or all are damaged.
        """
        paths = listed(self._folder)[::-1]
        if not paths:
            return None
        restored, state = first_whole(paths, self._restore)
        self._best = state.best
        # What was just restored has been read.
        if state.best is not None and state.best.step != step_of(restored):
            found = [path for path in paths if step_of(path) == state.best.step]
            # It may have made room for a later one, which has been damaged since.
            if not found or _is_damaged_best(found[0]):
                self._best = None
        return state

    def _restore(self, path: str) -> tuple[str, RunState]:
        state, spec = read_state(path), read_spec(path)
        was_trained = checkpoint_files.has_optimizers(path)
        try:
            check_same_spec(self._spec, spec)
            self._check_run(state, was_trained)
        except InputError as error:
            raise error.within(
                path,
                hint="Use another `model_dir`, or the plan and settings that this "
                "model was trained with",
            ) from None
        checkpoint_files.restore(path, self._variables)
        return path, state

    def _check_run(self, state: RunState, was_trained: bool) -> None:
        """Raises InputError, without a place, if the saved run was another."""
        if self._is_trained and not was_trained:
            raise InputError(
                "",
                expected="a model that was trained here",
                received="one that was composed of others, whose training cannot be "
                "resumed",
            )
        for name, value in state.invariants.items():
            if self._invariants.get(name) != value:
                raise InputError(
                    "", expected=f"{name} {self._invariants.get(name)}", received=value
                )

    def _sweep(self, step: int) -> None:
        """Removes all but the last ones up to this step and the best.

        Later ones are damaged, or the run would have gone on after them.
        """
        paths = listed(self._folder)
        kept = [path for path in paths if step_of(path) <= step][-self._keep :]
        for path in paths:
            if path not in kept and not (
                self._best is not None and self._best.step == step_of(path)
            ):
                checkpoint_files.remove(path)
        for name in migrations.OBSOLETE_IN_CHECKPOINTS:
            (self._folder / name).unlink(missing_ok=True)


def _is_damaged_best(path: str) -> bool:
    """Reads the best checkpoint, and says so if it is damaged."""
    try:
        checkpoint_files.check_whole(path)
    except DamagedCheckpointError as error:
        logging.warning("%s; it was the best, and the next one takes its place", error)
        return True
    return False


def _on_disk(network) -> dict[str, Any]:
    """Path in a checkpoint -> variable, of a network."""
    return {f"network/{path}": v for path, v in network.variables_by_path().items()}


def save_model(model_dir: str | os.PathLike, spec: ModelSpec, network) -> str:
    """Writes a model that was not trained here: a network without optimizers.

    Args:
      model_dir: folder to make.
      spec: what the network is.
      network: the network, with its weights.

    Returns:
      The checkpoint's path, of step 0.

    Raises:
      InputError: if the folder holds a model already.
      OSError: if it cannot be written.
    """
    check_free(model_dir)
    return Checkpoints(model_dir, spec, network, {}, keep=1).save(RunState())


def serving(model_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Which model serves which domain: of one model, or of independent ones.

    Args:
      model_dir: the folder that training wrote.

    Returns:
      Domain -> `model_dir` itself, or the folder in it that holds the domain's model.

    Raises:
      InputError: if there is no checkpoint in any, or two models serve one domain.
    """
    folders = [pathlib.Path(model_dir)]
    if not has_model(model_dir):
        inner = sorted(path.parent for path in folders[0].glob("*/checkpoints"))
        folders = [path for path in inner if has_model(path)] or folders
    found: dict[str, pathlib.Path] = {}
    for folder in folders:
        try:
            names = load_spec(folder).plan.names
        except DamagedCheckpointError as error:
            if len(folders) == 1:
                raise
            logging.warning("%s; its domains are left out", error)
            continue
        for name in names:
            if name in found:
                raise InputError(
                    model_dir,
                    expected=f"one model for {name}",
                    received=f"{found[name]} and {folder}",
                    hint="Name one of them",
                )
            found[name] = folder
    return found


def has_model(model_dir: str | os.PathLike) -> bool:
    """Whether a folder holds a checkpoint."""
    return bool(listed(checkpoint_folder(model_dir)))


def check_free(model_dir: str | os.PathLike) -> None:
    """Checks that a folder may be given a model.

    Raises:
      InputError: if it holds one.
    """
    if has_model(model_dir):
        raise InputError(
            model_dir,
            expected="a folder without a model",
            received=candidates(model_dir)[0],
        )


def load_spec(model_dir: str | os.PathLike, checkpoint: str = NEWEST) -> ModelSpec:
    """What the model of a folder is, without building it.

    Args:
      model_dir: folder that training wrote.
      checkpoint: see `load_network`, which reports those that are damaged.

    Raises:
      InputError: if there is no checkpoint or none is whole.
    """
    paths = candidates(model_dir, checkpoint)
    return first_whole(paths, read_spec, quietly=True)


def load_network(
    model_dir: str | os.PathLike,
    *,
    checkpoint: str = NEWEST,
    precision: str = "float32",
) -> tuple[ModelSpec, Any, str]:
    """Builds the network of a checkpoint and restores it.

    Args:
      model_dir: folder that training wrote.
      checkpoint: "newest" that is whole, "best" or "step-N".
      precision: "float32", "mixed_float16" or "mixed_bfloat16", to compute in; the
        variables are float32 in each.

    Returns:
      What it is, the network, and the checkpoint's path.

    Raises:
      InputError: if there is no such checkpoint, or none that is whole.
    """

    def load(path: str) -> tuple[ModelSpec, Any, str]:
        spec = read_spec(path)
        network = build_network(spec, dtype=precision)
        checkpoint_files.restore(path, _on_disk(network), within="network/")
        return spec, network, path

    return first_whole(candidates(model_dir, checkpoint), load)
