"""Checkpoints: variables, optimizers, the state of the run, and the plan, in one.

A checkpoint needs nothing beside it: `load_network` builds the network from what lies
inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from u2net_tf import files
from u2net_tf.command import InputError
from u2net_tf.models.model_spec import (
    ModelSpec,
    build_network,
    spec_difference,
    spec_from_json,
    spec_to_json,
)

_NAME = "step"
_SPEC_KEY = "spec/.ATTRIBUTES/VARIABLE_VALUE"
_STATE_KEY = "state/.ATTRIBUTES/VARIABLE_VALUE"


class DamagedCheckpointError(InputError):
    """A checkpoint that is cut short or altered."""


def checkpoint_folder(model_dir: str | os.PathLike) -> pathlib.Path:
    """Where the checkpoints of a model lie.

    Raises:
      InputError: if the path holds a character that TensorFlow takes for a pattern: it
        would write checkpoints there and never find them again.
    """
    pattern = set("*?[]\\") & set(str(pathlib.Path(model_dir).resolve()))
    if pattern:
        raise InputError(
            f"--model_dir: expected a path without {' '.join(sorted(pattern))}, found "
            f"{pathlib.Path(model_dir).resolve()}"
        )
    return pathlib.Path(model_dir) / "checkpoints"


class Checkpoints:
    """Saves and restores one training run.

    Args:
      model_dir: the run's folder.
      spec: what the network is.
      network: the network, built.
      optimizers: the optimizers, built, and what else changes with their steps; none
        for a model that is not trained.
      keep: how many checkpoints stay.
      run: what a run must have in common with the one that it goes on with, for
        example {"precision": "float32"}; JSON.

    Raises:
      OSError: if the folder cannot be made.
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
        self._spec_text = tf.Variable("", dtype=tf.string, trainable=False)
        self._state = tf.Variable("", dtype=tf.string, trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            network=network,
            optimizers=list(optimizers),
            spec=self._spec_text,
            state=self._state,
        )
        folder = checkpoint_folder(model_dir)
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        _mend_list(folder)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=keep, checkpoint_name=_NAME
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
        self._state.assign(json.dumps({"state": state, "run": self._run}))
        # Anew each time: restoring brings back the plan as it was, and what training
        # does not depend on may have been edited since.
        self._spec_text.assign(spec_to_json(self._spec))
        # TensorFlow tells each time how long it thought about sharding.
        logging.get_absl_logger().addFilter(_is_not_about_sharding)
        try:
            return self._manager.save(checkpoint_number=step)
        except tf.errors.OpError as error:
            _remove_leftovers(pathlib.Path(self._manager.directory))
            raise OSError(
                f"{self._manager.directory}: cannot write a checkpoint: {error.message}"
            ) from error

    def newest(self) -> str | None:
        """Path of the newest checkpoint; None if there is none yet."""
        return self._manager.latest_checkpoint

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
                difference = spec_difference(
                    self._spec, _read_spec(path)
                ) or self._run_difference(path)
                if difference:
                    raise InputError(
                        f"{path}: {difference}; use another --model_dir, or the plan "
                        "and flags that this model was trained with"
                    )
                with _told(path):
                    self._checkpoint.restore(path).assert_consumed()
            except DamagedCheckpointError as error:
                logging.warning("%s; taking the one before", error)
                continue
            return _split_state(self._state.numpy())[0]
        if paths:
            raise InputError(
                f"{self._manager.directory}: expected a whole checkpoint, found "
                f"{len(paths)} damaged ones"
            )
        return None

    def _run_difference(self, path: str) -> str:
        """Says in what the saved run differs from this one; "" if in nothing."""
        with _told(path):
            reader = tf.train.load_checkpoint(path)
            text = reader.get_tensor(_STATE_KEY)
            names = reader.get_variable_to_shape_map()
        held = {name.split("/")[1] for name in names if name.startswith("optimizers/")}
        if self._is_trained and not held:
            return "expected a model that was trained here, found one that was made"
        for field, found in _split_state(text)[1].items():
            if self._run.get(field) != found:
                return f"expected {field} {self._run.get(field)}, found {found}"
        return ""


def _is_not_about_sharding(record) -> bool:
    return record.module != "functional_saver"


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


def latest_checkpoint(model_dir: str | os.PathLike) -> str:
    """Path of the newest checkpoint.

    Raises:
      InputError: if there is none.
    """
    folder = checkpoint_folder(model_dir)
    paths = _listed(folder) or _found(folder)
    if not paths:
        inner = sorted(p.parent for p in pathlib.Path(model_dir).glob("*/checkpoints"))
        found = f", but models in {', '.join(map(str, inner))}" if inner else ""
        raise InputError(
            f"{model_dir}: expected a model as `python -m u2net_tf.train` writes it, "
            f"found no checkpoint in {folder}{found}"
        )
    return paths[-1]


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
    return bool(_found(checkpoint_folder(model_dir)))


def check_free(model_dir: str | os.PathLike) -> None:
    """Checks that a folder may be given a model.

    Raises:
      InputError: if it holds one.
    """
    if has_model(model_dir):
        raise InputError(
            f"{model_dir}: expected a folder without a model, found "
            f"{latest_checkpoint(model_dir)}"
        )


def load_spec(model_dir: str | os.PathLike) -> ModelSpec:
    """What the model of a folder is, without building it.

    Raises:
      InputError: if there is no checkpoint or it is damaged.
    """
    return _read_spec(latest_checkpoint(model_dir))


def load_network(
    model_dir: str | os.PathLike, *, precision: str = "float32"
) -> tuple[ModelSpec, Any, str]:
    """Builds the network of a model's newest checkpoint and restores it.

    Args:
      model_dir: folder that training wrote.
      precision: "float32", "mixed_float16" or "mixed_bfloat16", to compute in; the
        variables are float32 in each.

    Returns:
      What it is, the network, and the checkpoint's path.

    Raises:
      InputError: if there is no checkpoint or it is damaged.
    """
    path = latest_checkpoint(model_dir)
    spec = _read_spec(path)
    network = build_network(spec, dtype=precision)
    with _told(path):
        status = tf.train.Checkpoint(network=network).restore(path)
        status.assert_existing_objects_matched().expect_partial()
    return spec, network, path


def _read_spec(path: str) -> ModelSpec:
    with _told(path):
        reader = tf.train.load_checkpoint(path)
        text = reader.get_tensor(_SPEC_KEY) if reader.has_tensor(_SPEC_KEY) else None
    if text is None:
        raise InputError(
            f"{path}: expected a checkpoint of u2net_tf.train, found one without a plan"
        )
    return spec_from_json(text.decode(), path)


def _split_state(text: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a run, and what it must have in common with one that goes on."""
    saved = json.loads(text.decode())
    # Before a run was named, its state alone was saved.
    return (saved["state"], saved["run"]) if "run" in saved else (saved, {})


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Says in our words what TensorFlow raises while it reads a checkpoint."""
    try:
        yield
    except (tf.errors.OpError, IndexError) as error:
        # IndexError: a file that is shorter than its index says.
        raise DamagedCheckpointError(
            f"{path}: expected a whole checkpoint, found a damaged one: {error}"
        ) from error
    except (AssertionError, ValueError) as error:
        raise InputError(
            f"{path}: expected the variables of this version's network, found others: "
            f"{error}"
        ) from error


def _listed(folder: pathlib.Path) -> list[str]:
    """Checkpoints in TensorFlow's list of them, oldest first; none if it is lost."""
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except ValueError:
        # An empty file, as a power cut leaves it.
        return []
    return list(state.all_model_checkpoint_paths) if state else []


def _found(folder: pathlib.Path) -> list[str]:
    """Checkpoints that lie in a folder, in the order of their steps."""
    found = [path.with_suffix("") for path in folder.glob(f"{_NAME}-*.index")]
    steps = {path: path.name.removeprefix(f"{_NAME}-") for path in found}
    numbered = [path for path in found if steps[path].isdecimal()]
    return [str(path) for path in sorted(numbered, key=lambda path: int(steps[path]))]


def _mend_list(folder: pathlib.Path) -> None:
    """Lists the checkpoints anew where the list is lost: a run must not start over."""
    if _listed(folder):
        return
    paths = _found(folder)
    if paths:
        logging.warning("%s: the list of checkpoints was lost; made anew", folder)
        lines = [f'model_checkpoint_path: "{pathlib.Path(paths[-1]).name}"']
        for path in paths:
            seconds = pathlib.Path(f"{path}.index").stat().st_mtime
            lines.append(f'all_model_checkpoint_paths: "{pathlib.Path(path).name}"')
            lines.append(f"all_model_checkpoint_timestamps: {seconds}")
        files.write_text(folder / "checkpoint", "\n".join(lines) + "\n")
    else:
        (folder / "checkpoint").unlink(missing_ok=True)


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what a write that was interrupted left."""
    for path in folder.glob(f"{_NAME}-*_temp"):
        shutil.rmtree(path, ignore_errors=True)
