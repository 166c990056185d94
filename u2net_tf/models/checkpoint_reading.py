"""Reads checkpoints of this version and of earlier ones.

A checkpoint contains named tensors: "spec" and "state", which are JSON, and variables
under paths that this project defines, such as
"network/encoder_0/unit_1/depthwise/kernel_1" and "optimizer/shared/iterations".
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.models import object_graph
from u2net_tf.models.checkpoint_index import (
    DamagedCheckpointError,
    require_not_removed,
    text_names,
)
from u2net_tf.models.run_state import RunState, state_from_json
from u2net_tf.models.spec import ModelSpec, spec_from_json

_OPTIMIZER = "optimizer/"
# Networks up to this size are built without checking the size of the files.
_SMALL_NETWORK_BYTES = 2**24
# Raised if a disk cannot be read at present; the files may be intact.
_NOT_DAMAGE = (
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)
_Read = TypeVar("_Read")


class CheckpointReader:
    """Reads the contents of a checkpoint, which it opens once.

    Args:
      path: the checkpoint.

    Raises:
      InputError: if the checkpoint is damaged or was not written by this package.
    """

    def __init__(self, path: str):
        self.path = path
        with translate_tf_errors(path):
            self._reader = tf.train.load_checkpoint(path)
            self._stored = self._reader.get_variable_to_shape_map().keys()
        self._is_old = object_graph.has_object_graph(self._stored)
        self._spec, self._state = text_names(self._stored, path)

    def spec(self) -> ModelSpec:
        """Returns the specification of the network.

        Raises:
          InputError: if the checkpoint is damaged or of a later version.
        """
        return spec_from_json(self._text(self._spec), self.path)

    def state(self) -> RunState:
        """Returns the state of the run.

        Raises:
          InputError: if the checkpoint is damaged or of a later version.
        """
        return state_from_json(self._text(self._state), self.path)

    def require_bytes(self, number: int) -> None:
        """Checks that the checkpoint is at least as large as its network.

        Args:
          number: bytes of the network's variables.

        Raises:
          DamagedCheckpointError: if it is smaller.
        """
        path = pathlib.Path(self.path)
        size = sum(part.stat().st_size for part in path.parent.glob(f"{path.name}.*"))
        if number > size + _SMALL_NETWORK_BYTES:
            raise DamagedCheckpointError(
                self.path,
                expected=f"at least {number:,} bytes, the size of its network",
                received=f"{size:,} bytes",
            )

    def has_optimizers(self) -> bool:
        """Returns whether the model was trained rather than composed.

        Raises:
          InputError: if the checkpoint is damaged.
        """
        with translate_tf_errors(self.path):
            return any(name.startswith(_OPTIMIZER) for name in self._keys)

    def restore(
        self,
        variables: Mapping[str, Any],
        *,
        within: str = "",
        without: Sequence[str] = (),
    ) -> None:
        """Assigns the values in the checkpoint to variables.

        Args:
          variables: path -> variable. These must be all variables of the checkpoint,
            except as the next two arguments allow.
          within: prefix of the paths to restore, for example of the network without the
            optimizers.
          without: prefixes of paths to ignore.

        Raises:
          InputError: if the checkpoint is damaged or has other variables. Then no
            variable is changed.
        """
        with translate_tf_errors(self.path):
            stored = {
                name
                for name in self._keys
                if name.startswith(within) and not name.startswith(tuple(without))
            }
            differing = sorted(stored ^ variables.keys())
            values: dict[str, np.ndarray] = {}
            if not differing:
                values = {
                    name: self._reader.get_tensor(self._keys[name])
                    for name in variables
                }
        differing += [
            f"{name} of shape {value.shape} and type {value.dtype}"
            for name, value in values.items()
            if value.shape != tuple(variables[name].shape)
            or value.dtype != tf.as_dtype(variables[name].dtype).as_numpy_dtype
        ]
        if differing:
            raise InputError(
                self.path,
                expected="the variables of this version's network",
                received=f"others, such as {differing[0]}",
            )
        for name, value in values.items():
            variables[name].assign(value)

    @functools.cached_property
    def _keys(self) -> dict[str, str]:
        """Path of a variable -> name of its tensor in the file."""
        if self._is_old:
            return object_graph.checkpoint_keys(self._reader.get_tensor)
        return {name: name for name in self._stored - {self._spec, self._state}}

    def _text(self, name: str) -> str:
        with translate_tf_errors(self.path):
            value = self._reader.get_tensor(name)
        try:
            return value.decode()
        except (AttributeError, UnicodeDecodeError):
            raise InputError(
                self.path,
                expected=f"a checkpoint of u2net_tf.train with the text {name!r}",
                received=repr(value)[:200],
            ) from None


def check_intact(path: str) -> None:
    """Checks a checkpoint by reading all of it.

    Raises:
      DamagedCheckpointError: if it cannot be read.
    """
    with translate_tf_errors(path):
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


def read_newest_intact(
    paths: Sequence[str], read: Callable[[str], _Read], *, quietly: bool = False
) -> _Read:
    """Returns `read(path)` for the first checkpoint that is not damaged.

    Args:
      paths: checkpoints, at least one, in the order in which to try them.
      read: function that reads a checkpoint.
      quietly: whether to skip damaged checkpoints without a warning.

    Raises:
      DamagedCheckpointError: if all are damaged.
      RemovedCheckpointError: if a checkpoint was removed before it was read.
    """
    for path in paths:
        try:
            return read(path)
        except FileNotFoundError:
            require_not_removed(path)
            raise
        except DamagedCheckpointError as error:
            require_not_removed(path)
            if len(paths) == 1:
                raise
            last = error
            if not quietly and path != paths[-1]:
                logging.warning("%s; using the previous one", error)
    raise DamagedCheckpointError(
        pathlib.Path(paths[0]).parent,
        expected="an undamaged checkpoint",
        received=f"{len(paths)} damaged ones; the last: {last}",
    )


@contextlib.contextmanager
def translate_tf_errors(path: str) -> Iterator[None]:
    """Translates TensorFlow's read errors.

    Args:
      path: the checkpoint that is read.

    Raises:
      InputError: in place of a TensorFlow error or a `KeyError`; a
        `DamagedCheckpointError` if the file is truncated or corrupt.
    """
    try:
        yield
    except _NOT_DAMAGE as error:
        raise InputError(path, expected="a readable file", received=error) from error
    except KeyError as error:
        raise InputError(
            path,
            expected="the variables of this version's network",
            received=f"others, without {error}",
        ) from error
    except (tf.errors.OpError, IndexError) as error:
        # IndexError: the file is shorter than recorded in its index.
        raise DamagedCheckpointError(
            path,
            expected="an undamaged checkpoint",
            received=f"a truncated or corrupt one: {error}",
        ) from error
