"""The files of a model's checkpoints: where they lie, which there are, what they say.

A checkpoint is there once its index is, the file that gets its name last. What was
interrupted while it was written has none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import tensorflow as tf
from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.models.best import Best
from u2net_tf.models.model_spec import ModelSpec, spec_from_json

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
_SPEC_KEY = "spec/.ATTRIBUTES/VARIABLE_VALUE"
_STATE_KEY = "state/.ATTRIBUTES/VARIABLE_VALUE"
_Read = TypeVar("_Read")


class DamagedCheckpointError(InputError):
    """A checkpoint that is cut short or altered."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint says of its run.

    Attributes:
      state: what the run needs to go on; JSON.
      run: what a run that goes on must have in common with it; JSON.
      best: the best checkpoint up to this one; None if that was not noted.
    """

    state: dict[str, Any]
    run: dict[str, Any]
    best: Best | None = None

    def to_json(self) -> str:
        """The text that goes into a checkpoint."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Saved:
        """Reads it back, also as earlier versions wrote it."""
        fields = json.loads(text.decode())
        if "run" not in fields:
            # Before a run was named, its state alone was saved.
            return cls(fields, {})
        best = fields.get("best")
        return cls(fields["state"], fields["run"], Best(**best) if best else None)


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
            f"{model_dir}: expected a model as `python -m u2net_tf.train` writes it, "
            f"found no checkpoint in {folder}{found}"
        )
    if checkpoint == NEWEST:
        return paths
    name = checkpoint
    if checkpoint == BEST:
        best = first_whole(paths, read_saved).best
        if best is None:
            raise InputError(
                f"--checkpoint: expected newest or step-N, for no best one is noted in "
                f"{paths[0]}; found best"
            )
        name = f"{_NAME}-{best.step}"
    if str(folder / name) not in paths:
        there = ", ".join(pathlib.Path(path).name for path in reversed(paths))
        raise InputError(
            f"--checkpoint: expected newest, best or one of {there} in {folder}, found "
            f"{checkpoint}{f' ({name})' if name != checkpoint else ''}"
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
        f"{pathlib.Path(paths[0]).parent}: expected a whole checkpoint, found "
        f"{len(paths)} damaged ones; the last: {last}"
    )


def read_spec(path: str) -> ModelSpec:
    """What the network of a checkpoint is.

    Raises:
      InputError: if the checkpoint is damaged or of something else.
    """
    with told(path):
        reader = tf.train.load_checkpoint(path)
        text = reader.get_tensor(_SPEC_KEY) if reader.has_tensor(_SPEC_KEY) else None
    if text is None:
        raise InputError(
            f"{path}: expected a checkpoint of u2net_tf.train, found one without a plan"
        )
    return spec_from_json(text.decode(), path)


def read_saved(path: str) -> Saved:
    """What a checkpoint says of its run.

    Raises:
      DamagedCheckpointError: if it cannot be read.
    """
    with told(path):
        return Saved.from_json(tf.train.load_checkpoint(path).get_tensor(_STATE_KEY))


def has_optimizers(path: str) -> bool:
    """Whether a checkpoint is of a model that was trained.

    Raises:
      DamagedCheckpointError: if it cannot be read.
    """
    with told(path):
        names = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    return any(name.startswith("optimizers/") for name in names)


def check_whole(path: str) -> None:
    """Reads all that a checkpoint holds; TensorFlow compares its checksums.

    Raises:
      DamagedCheckpointError: if any of it cannot be read.
    """
    with told(path):
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


@contextlib.contextmanager
def told(path: str) -> Iterator[None]:
    """Says in our words what TensorFlow raises while it reads a checkpoint."""
    try:
        yield
    except _NOT_DAMAGE as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
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


def write(checkpoint: tf.train.Checkpoint, folder: pathlib.Path, step: int) -> str:
    """Writes a checkpoint whole or not at all; returns its path.

    TensorFlow itself gives the files their names while the index is being written.
    """
    path = folder / f"{_NAME}-{step}"
    unfinished = folder / _UNFINISHED
    try:
        checkpoint.write(str(unfinished / path.name))
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
