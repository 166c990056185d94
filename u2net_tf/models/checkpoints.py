"""Checkpoints: variables, optimizers, the state of the run, and the plan, in one.

A checkpoint needs nothing beside it: `load_network` builds the network from what lies
inside.
"""

from __future__ import annotations

import logging as python_logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.models import checkpoint_files
from u2net_tf.models.best import Best
from u2net_tf.models.checkpoint_files import (
    NEWEST,
    DamagedCheckpointError,
    Saved,
    candidates,
    checkpoint_folder,
    first_whole,
    listed,
    read_saved,
    read_spec,
    step_of,
    told,
)
from u2net_tf.models.model_spec import (
    ModelSpec,
    build_network,
    spec_difference,
    spec_to_json,
)


class Checkpoints:
    """Saves and restores one training run.

    Args:
      model_dir: the run's folder.
      spec: what the network is.
      network: the network, built.
      optimizers: the optimizers, built, and what else changes with their steps; none
        for a model that is not trained.
      keep: how many checkpoints stay; the best one stays besides.
      run: what a run must have in common with the one that it goes on with, for
        example {"precision": "float32"}; JSON.

    Nothing is written before the first checkpoint.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike,
        spec: ModelSpec,
        network,
        optimizers: Sequence,
        *,
        keep: int,
        run: Mapping[str, Any] | None = None,
    ):
        self._spec = spec
        self._run = dict(run or {})
        self._is_trained = bool(optimizers)
        self._keep = keep
        self._best: Best | None = None
        self._spec_text = tf.Variable("", dtype=tf.string, trainable=False)
        self._saved = tf.Variable("", dtype=tf.string, trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            network=network,
            optimizers=list(optimizers),
            spec=self._spec_text,
            state=self._saved,
        )
        # Made when it is asked for. TensorFlow wants it in what it restores.
        _ = self._checkpoint.save_counter
        self._folder = checkpoint_folder(model_dir)
        checkpoint_files.remove_leftovers(self._folder)

    def save(
        self, step: int, state: dict[str, Any], candidate: Best | None = None
    ) -> str:
        """Writes a checkpoint, whole or not at all, and removes those not to keep.

        Args:
          step: number of steps done.
          state: what else the run needs to go on; JSON.
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
        self._saved.assign(Saved(state, self._run, best).to_json())
        # Anew each time: restoring brings back the plan as it was, and what training
        # does not depend on may have been edited since.
        self._spec_text.assign(spec_to_json(self._spec))
        # TensorFlow logs each time how long it took to decide about sharding.
        logging.get_absl_logger().addFilter(_is_not_about_sharding)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            path = checkpoint_files.write(self._checkpoint, self._folder, step)
        except tf.errors.OpError as error:
            raise OSError(
                f"{self._folder}: cannot write a checkpoint: {error.message}"
            ) from error
        self._best = best
        self._sweep(step)
        return path

    def newest(self) -> str | None:
        """Path of the newest checkpoint; None if there is none yet."""
        return (listed(self._folder) or [None])[-1]

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest checkpoint that is whole.

        A best one that is damaged is told and forgotten: the next becomes the best.

        Returns:
          The `state` that was saved with it; None if there is no checkpoint.

        Raises:
          InputError: if it was made with another plan or network, or none is whole.
        """
        paths = listed(self._folder)[::-1]
        if not paths:
            return None
        restored, saved = first_whole(paths, self._restore)
        self._best = saved.best
        # What was just restored has been read.
        if saved.best is not None and saved.best.step != step_of(restored):
            found = [path for path in paths if step_of(path) == saved.best.step]
            # It may have made room for a later one, which has been damaged since.
            if not found or _is_damaged_best(found[0]):
                self._best = None
        return saved.state

    def _restore(self, path: str) -> tuple[str, Saved]:
        saved = read_saved(path)
        difference = spec_difference(
            self._spec, read_spec(path)
        ) or self._run_difference(path, saved.run)
        if difference:
            raise InputError(
                f"{path}: {difference}; use another --model_dir, or the plan and flags "
                "that this model was trained with"
            )
        with told(path):
            self._checkpoint.restore(path).assert_consumed()
        return path, saved

    def _run_difference(self, path: str, run: Mapping[str, Any]) -> str:
        """Says in what the saved run differs from this one; "" if in nothing."""
        if self._is_trained and not checkpoint_files.has_optimizers(path):
            return "expected a model that was trained here, found one that was made"
        for field, found in run.items():
            if self._run.get(field) != found:
                return f"expected {field} {self._run.get(field)}, found {found}"
        return ""

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
        # TensorFlow's list of them, which earlier versions kept, is no longer right.
        (self._folder / "checkpoint").unlink(missing_ok=True)


def _is_damaged_best(path: str) -> bool:
    """Reads the best checkpoint, and says so if it is damaged."""
    try:
        checkpoint_files.check_whole(path)
    except DamagedCheckpointError as error:
        logging.warning("%s; it was the best, and the next one takes its place", error)
        return True
    return False


def _is_not_about_sharding(record) -> bool:
    return record.module != "functional_saver" or record.levelno > python_logging.INFO


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
    return Checkpoints(model_dir, spec, network, (), keep=1).save(0, {})


def serving(model_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Which model serves which domain: of one model, or of independent ones.

    Args:
      model_dir: what `--model_dir` was for training.

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
                    f"{model_dir}: expected one model for {name}, found {found[name]} "
                    f"and {folder}; name one of them"
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
            f"{model_dir}: expected a folder without a model, found "
            f"{candidates(model_dir)[0]}"
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
        with told(path):
            status = tf.train.Checkpoint(network=network).restore(path)
            status.assert_existing_objects_matched().expect_partial()
        return spec, network, path

    return first_whole(candidates(model_dir, checkpoint), load)
