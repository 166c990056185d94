"""Checkpoints: variables, optimizers, the state of the run, and the plan, in one.

A checkpoint needs nothing beside it: `load_network` builds the network from what lies
inside.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from u2net_tf.command import InputError
from u2net_tf.models.model_spec import (
    ModelSpec,
    build_network,
    spec_difference,
    spec_from_json,
    spec_to_json,
)

_SPEC_KEY = "spec/.ATTRIBUTES/VARIABLE_VALUE"


def checkpoint_folder(model_dir: str | os.PathLike) -> pathlib.Path:
    """Where the checkpoints of a model lie."""
    return pathlib.Path(model_dir) / "checkpoints"


class Checkpoints:
    """Saves and restores one training run.

    Args:
      model_dir: the run's folder.
      spec: what the network is.
      network: the network, built.
      optimizers: the optimizers, built.
      keep: how many checkpoints stay.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike,
        spec: ModelSpec,
        network,
        optimizers: Sequence,
        *,
        keep: int,
    ):
        self._spec = spec
        self._state = tf.Variable("", dtype=tf.string, trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            network=network,
            optimizers=list(optimizers),
            spec=tf.Variable(spec_to_json(spec), dtype=tf.string, trainable=False),
            state=self._state,
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint,
            str(checkpoint_folder(model_dir)),
            max_to_keep=keep,
            checkpoint_name="step",
        )

    def save(self, step: int, state: dict[str, Any]) -> str:
        """Writes a checkpoint.

        Args:
          step: number of steps done.
          state: what else the run needs to go on; JSON.

        Returns:
          The checkpoint's path.

        Raises:
          OSError: if it cannot be written, for example on a full disk. The older
            checkpoints stay.
        """
        self._state.assign(json.dumps(state))
        try:
            return self._manager.save(checkpoint_number=step)
        except tf.errors.OpError as error:
            raise OSError(
                f"{self._manager.directory}: cannot write a checkpoint: {error.message}"
            ) from error

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest checkpoint that is whole.

        Returns:
          The `state` that was saved with it; None if there is no checkpoint.

        Raises:
          InputError: if it was made with another plan or network, or none is whole.
        """
        paths = list(reversed(self._manager.checkpoints))
        for path in paths:
            try:
                difference = spec_difference(self._spec, _read_spec(path))
                if difference:
                    raise InputError(
                        f"{path}: {difference}; use another --model_dir, or the plan "
                        "and flags that this model was trained with"
                    )
                self._checkpoint.restore(path).assert_consumed()
            except tf.errors.OpError as error:
                logging.warning(
                    "%s is damaged, taking the one before: %s", path, error.message
                )
                continue
            return json.loads(self._state.numpy().decode())
        if paths:
            raise InputError(
                f"{self._manager.directory}: expected a whole checkpoint, found "
                f"{len(paths)} damaged ones"
            )
        return None


def latest_checkpoint(model_dir: str | os.PathLike) -> str:
    """Path of the newest checkpoint.

    Raises:
      InputError: if there is none.
    """
    folder = checkpoint_folder(model_dir)
    path = tf.train.latest_checkpoint(str(folder)) if folder.is_dir() else None
    if path is None:
        raise InputError(
            f"{model_dir}: expected a model as `python -m u2net_tf.train` writes it, "
            f"found no checkpoint in {folder}"
        )
    return path


def load_network(model_dir: str | os.PathLike) -> tuple[ModelSpec, Any, str]:
    """Builds the network of a model's newest checkpoint and restores it.

    Args:
      model_dir: folder that training wrote.

    Returns:
      What it is, the network, and the checkpoint's path.

    Raises:
      InputError: if there is no checkpoint or it is damaged.
    """
    path = latest_checkpoint(model_dir)
    try:
        spec = _read_spec(path)
        network = build_network(spec)
        status = tf.train.Checkpoint(network=network).restore(path)
        status.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError) as error:
        raise InputError(
            f"{path}: expected a whole checkpoint, found a damaged one: {error}"
        ) from error
    return spec, network, path


def _read_spec(path: str) -> ModelSpec:
    reader = tf.train.load_checkpoint(path)
    if not reader.has_tensor(_SPEC_KEY):
        raise InputError(
            f"{path}: expected a checkpoint of u2net_tf.train, found one without a plan"
        )
    return spec_from_json(reader.get_tensor(_SPEC_KEY).decode(), path)
