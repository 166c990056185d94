"""Locates, lists, names and removes the files of a model's checkpoints.

A checkpoint exists once its index exists, which is the last file to be renamed. One
whose writing was interrupted has no index.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import Sequence

from u2net_tf import files, migrations, schema, temporary_names
from u2net_tf.errors import InputError
from u2net_tf.models import checkpoint_replacement

_PREFIX = "step-"
# Names that `checkpoint_name` returns.
_NAME = re.compile(rf"{_PREFIX}(0|[1-9][0-9]{{0,{len(str(schema.MAX_STEP)) - 1}}})")


def checkpoint_folder(model_dir: str | os.PathLike) -> pathlib.Path:
    """Returns the folder of a model's checkpoints.

    Raises:
      InputError: if the path contains a wildcard character of TensorFlow, which would
        write checkpoints there and never find them again.
    """
    wildcards = set("*?[]\\") & set(str(pathlib.Path(model_dir).resolve()))
    if wildcards:
        raise InputError(
            "`model_dir`",
            expected=f"a path without {' '.join(sorted(wildcards))}",
            received=pathlib.Path(model_dir).resolve(),
        )
    return pathlib.Path(model_dir) / "checkpoints"


def checkpoint_hash(path: str) -> str:
    """Returns the SHA-256 of a checkpoint's index, which covers weights and plan."""
    return hashlib.sha256(pathlib.Path(f"{path}.index").read_bytes()).hexdigest()


def checkpoint_name(step: int) -> str:
    """Returns the name of the checkpoint of a step."""
    return f"{_PREFIX}{step}"


def list_checkpoints(folder: pathlib.Path) -> list[str]:
    """Returns the paths of the checkpoints in a folder, oldest first."""
    found = [
        path.with_suffix("")
        for path in folder.glob(f"{_PREFIX}*.index")
        if _is_checkpoint_name(path.stem) and path.is_file()
    ]
    return [str(path) for path in sorted(found, key=step_of)]


def other_indices(folder: pathlib.Path) -> list[str]:
    """Returns names in a folder that end in ".index" but are not checkpoints."""
    indices = {f"{pathlib.Path(path).name}.index" for path in list_checkpoints(folder)}
    return sorted({path.name for path in folder.glob("*.index")} - indices)


def step_of(path: str | os.PathLike) -> int:
    """Returns the step of a checkpoint."""
    return int(pathlib.Path(path).name.removeprefix(_PREFIX))


def has_model(model_dir: str | os.PathLike) -> bool:
    """Returns whether a model's folder contains a checkpoint."""
    return bool(list_checkpoints(checkpoint_folder(model_dir)))


def inner_models(model_dir: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the subfolders of a folder that contain a model, sorted."""
    inner = sorted(pathlib.Path(model_dir).glob("*/checkpoints"))
    return [path.parent for path in inner if list_checkpoints(path)]


def remove(paths: Sequence[str]) -> None:
    """Removes checkpoints, their indices first."""
    for path in paths:
        # Otherwise, the checkpoint would be restored from it.
        shutil.rmtree(f"{path}{checkpoint_replacement.SUFFIX}", ignore_errors=True)
        pathlib.Path(f"{path}.index").unlink(missing_ok=True)
    for folder in {pathlib.Path(path).parent for path in paths}:
        # A power cut must not leave an index without its data.
        files.sync_folder(folder)
    for path in paths:
        _remove_data(pathlib.Path(path))


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes files whose writing or removal was interrupted.

    A checkpoint whose replacement was interrupted is restored.
    """
    temporary_names.remove_leftovers(folder)
    for backup in folder.glob(f"{_PREFIX}*{checkpoint_replacement.SUFFIX}"):
        if _is_checkpoint_name(backup.stem):
            checkpoint_replacement.settle(backup.with_suffix(""))
    shutil.rmtree(folder / migrations.UNFINISHED_CHECKPOINTS, ignore_errors=True)
    for data in folder.glob(f"{_PREFIX}*.data-*"):
        path = data.with_suffix("")
        index = pathlib.Path(f"{path}.index")
        if _is_checkpoint_name(path.name) and not index.exists():
            _remove_data(path)


def _is_checkpoint_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _remove_data(path: pathlib.Path) -> None:
    for data in path.parent.glob(f"{path.name}.data-*"):
        data.unlink(missing_ok=True)
