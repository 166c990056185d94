"""Locates, lists, reads and writes the files of a model's checkpoints.

A checkpoint is there once its index is, the file that gets its name last. What was
interrupted while it was written has none. It holds tensors by name: "spec" and "state",
JSON, and variables under paths of the project's own, such as
"network/encoder_0/unit_1/depthwise/kernel_1" and "optimizer/shared/iterations".
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from absl import logging

from u2net_tf import migrations
from u2net_tf.errors import InputError
from u2net_tf.models.run_state import RunState, state_from_json
from u2net_tf.models.spec import ModelSpec, spec_from_json

NEWEST, BEST = "newest", "best"

_NAME = "step"
# What TensorFlow raises where a disk cannot be read now: the files may be whole.
_NOT_DAMAGE = (
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)
_UNFINISHED = ".unfinished"
_SPEC, _STATE = "spec", "state"
_OPTIMIZER = "optimizer/"
_Read = TypeVar("_Read")


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
            "`model_dir`",
            expected=f"a path without {' '.join(sorted(pattern))}",
            received=pathlib.Path(model_dir).resolve(),
        )
    return pathlib.Path(model_dir) / "checkpoints"


def listed(folder: pathlib.Path) -> list[str]:
    """Checkpoints that lie in a folder, oldest first."""
    found = [path.with_suffix("") for path in folder.glob(f"{_NAME}-*.index")]
    numbered = [path for path in found if _number(path).isdecimal()]
    return [str(path) for path in sorted(numbered, key=step_of)]


def step_of(path: str | os.PathLike) -> int:
    """The step of a checkpoint."""
    return int(_number(path))


def candidates(model_dir: str | os.PathLike, checkpoint: str = NEWEST) -> list[str]:
    """The checkpoints that may be taken, in the order in which to try them.

    Args:
      model_dir: folder that training wrote.
      checkpoint: "newest": that, then the ones before it, should it be damaged; "best"
        or "step-N": that alone.

    Raises:
      InputError: if there is none.
    """
    folder = checkpoint_folder(model_dir)
    paths = listed(folder)[::-1]
    if not paths:
        inner = sorted(p.parent for p in pathlib.Path(model_dir).glob("*/checkpoints"))
        found = f", but models in {', '.join(map(str, inner))}" if inner else ""
        raise InputError(
            model_dir,
            expected="a model as `python -m u2net_tf.train` writes it",
            received=f"no checkpoint in {folder}{found}",
        )
    if checkpoint == NEWEST:
        return paths
    name = checkpoint
    if checkpoint == BEST:
        best = first_whole(paths, read_state).best
        if best is None:
            raise InputError(
                "`checkpoint`",
                expected=f"newest or step-N, since no best one is noted in {paths[0]}",
                received=BEST,
            )
        name = f"{_NAME}-{best.step}"
    if str(folder / name) not in paths:
        there = ", ".join(pathlib.Path(path).name for path in reversed(paths))
        raise InputError(
            "`checkpoint`",
            expected=f"newest, best or one of {there} in {folder}",
            received=f"{checkpoint}{f' ({name})' if name != checkpoint else ''}",
        )
    return [str(folder / name)]


def first_whole(
    paths: Sequence[str], read: Callable[[str], _Read], *, quietly: bool = False
) -> _Read:
    """What `read` makes of the first checkpoint that is whole.

    Args:
      paths: checkpoints, at least one, in the order in which to try them.
      read: reads one of them.
      quietly: do not report those that are damaged.

    Raises:
      DamagedCheckpointError: if none is whole.
    """
    for path in paths:
        try:
            return read(path)
        except DamagedCheckpointError as error:
            if len(paths) == 1:
                raise
            last = error
            if not quietly and path != paths[-1]:
                logging.warning("%s; taking the one before", error)
    raise DamagedCheckpointError(
        pathlib.Path(paths[0]).parent,
        expected="an undamaged checkpoint",
        received=f"{len(paths)} damaged ones; the last: {last}",
    )


class _Reader:
    """Reads a checkpoint, also one that an earlier version wrote."""

    def __init__(self, path: str):
        self._path = path
        self._reader = tf.train.load_checkpoint(path)
        self._stored = self._reader.get_variable_to_shape_map().keys()
        self._spec, self._state = _SPEC, _STATE
        self._is_old = migrations.has_object_graph(self._stored)
        if self._is_old:
            self._spec, self._state = migrations.spec_and_state_keys()
        if self._spec not in self._stored:
            raise InputError(
                path,
                expected="a checkpoint of u2net_tf.train",
                received="one without a plan",
            )

    @functools.cached_property
    def keys(self) -> dict[str, str]:
        """Path of a variable -> its name in the file."""
        if self._is_old:
            return migrations.checkpoint_keys(self._reader.get_tensor)
        return {name: name for name in self._stored - {self._spec, self._state}}

    def spec(self) -> str:
        """Text of the model."""
        return self._text(self._spec)

    def state(self) -> str:
        """Text of the run's state."""
        return self._text(self._state)

    def _text(self, name: str) -> str:
        value = self._reader.get_tensor(name)
        try:
            return value.decode()
        except (AttributeError, UnicodeDecodeError):
            raise InputError(
                self._path,
                expected=f"a checkpoint of u2net_tf.train, with a text {name!r}",
                received=repr(value)[:200],
            ) from None

    def variable(self, path: str) -> np.ndarray:
        """Value of a variable."""
        return self._reader.get_tensor(self.keys[path])


def read_spec(path: str) -> ModelSpec:
    """What the network of a checkpoint is.

    Raises:
      InputError: if the checkpoint is damaged or of something else.
    """
    with _explained(path):
        text = _Reader(path).spec()
    return spec_from_json(text, path)


def read_state(path: str) -> RunState:
    """What a checkpoint says of its run.

    Raises:
      InputError: if the checkpoint is damaged or of something else.
    """
    with _explained(path):
        text = _Reader(path).state()
    return state_from_json(text, path)


def has_optimizers(path: str) -> bool:
    """Whether a checkpoint is of a model that was trained.

    Raises:
      InputError: if the checkpoint is damaged or of something else.
    """
    with _explained(path):
        return any(name.startswith(_OPTIMIZER) for name in _Reader(path).keys)


def check_whole(path: str) -> None:
    """Reads all of a checkpoint.

    Raises:
      DamagedCheckpointError: if it cannot be read.
    """
    with _explained(path):
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


def restore(path: str, variables: Mapping[str, Any], *, within: str = "") -> None:
    """Assigns to variables what a checkpoint holds under their paths.

    Args:
      path: the checkpoint.
      variables: path -> variable.
      within: beginning of the paths that must all be among `variables`; a network is
        restored without the optimizers.

    Raises:
      InputError: if it is damaged, or its variables are others. Then none is changed.
    """
    with _explained(path):
        reader = _Reader(path)
        stored = {name for name in reader.keys if name.startswith(within)}
        differing = sorted(stored ^ variables.keys())
        values = {}
        if not differing:
            values = {name: reader.variable(name) for name in variables}
    differing += [
        f"{name} of shape {value.shape} and type {value.dtype}"
        for name, value in values.items()
        if value.shape != tuple(variables[name].shape)
        or value.dtype != tf.as_dtype(variables[name].dtype).as_numpy_dtype
    ]
    if differing:
        raise InputError(
            path,
            expected="the variables of this version's network",
            received=f"others, such as {differing[0]}",
        )
    for name, value in values.items():
        variables[name].assign(value)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Translates the errors that TensorFlow raises while it reads a checkpoint."""
    try:
        yield
    except _NOT_DAMAGE as error:
        raise InputError(
            path, expected="a file that can be read", received=error
        ) from error
    except KeyError as error:
        raise InputError(
            path,
            expected="the variables of this version's network",
            received=f"others, without {error}",
        ) from error
    except (tf.errors.OpError, IndexError) as error:
        # IndexError: a file that is shorter than its index says.
        raise DamagedCheckpointError(
            path,
            expected="an undamaged checkpoint",
            received=f"one that is cut short or altered: {error}",
        ) from error


def write(
    spec: str, state: str, variables: Mapping[str, Any], folder: pathlib.Path, step: int
) -> str:
    """Writes a checkpoint whole or not at all; returns its path.

    TensorFlow itself gives the files their names while the index is being written.

    Args:
      spec: text of the model.
      state: text of the run's state.
      variables: path -> variable.
      folder: folder of the model's checkpoints.
      step: number of steps done.
    """
    # The texts last: a file that was cut short lacks them, and nobody can miss that.
    tensors = {**variables, _STATE: state, _SPEC: spec}
    path = folder / f"{_NAME}-{step}"
    unfinished = folder / _UNFINISHED
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=str(unfinished / path.name),
                tensor_names=list(tensors),
                shape_and_slices=[""] * len(tensors),
                tensors=list(map(tf.convert_to_tensor, tensors.values())),
            )
        # One of that step that is there already is damaged, or the run would have gone
        # on after it. Its index does not fit to the new data.
        pathlib.Path(f"{path}.index").unlink(missing_ok=True)
        for part in unfinished.glob(f"{path.name}.data-*"):
            os.replace(part, folder / part.name)
        os.replace(unfinished / f"{path.name}.index", f"{path}.index")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return str(path)


def remove(path: str) -> None:
    """Removes a checkpoint, its index first: without that it is not there."""
    pathlib.Path(f"{path}.index").unlink(missing_ok=True)
    _remove_data(pathlib.Path(path))


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what was interrupted while it was written or removed."""
    shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
    for data in folder.glob(f"{_NAME}-*.data-*"):
        path = data.with_suffix("")
        if _number(path).isdecimal() and not pathlib.Path(f"{path}.index").exists():
            _remove_data(path)


def _number(path: str | os.PathLike) -> str:
    return pathlib.Path(path).name.removeprefix(f"{_NAME}-")


def _remove_data(path: pathlib.Path) -> None:
    for data in path.parent.glob(f"{path.name}.data-*"):
        data.unlink(missing_ok=True)
