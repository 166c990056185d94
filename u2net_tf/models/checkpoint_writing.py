"""Writes checkpoints atomically, even if the power fails."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from u2net_tf import files, system_errors, temporary_names
from u2net_tf.models import checkpoint_replacement
from u2net_tf.models.checkpoint_index import SPEC, STATE
from u2net_tf.models.checkpoint_paths import checkpoint_name


def write(
    spec: str, state: str, variables: Mapping[str, Any], folder: pathlib.Path, step: int
) -> str:
    """Writes a checkpoint and returns its path.

    The files are first written to a temporary folder, since TensorFlow itself would
    give them their final names before the index is complete.

    Args:
      spec: the model as JSON.
      state: the run's state as JSON.
      variables: path -> variable.
      folder: folder of the model's checkpoints.
      step: number of steps taken.

    Raises:
      OSError: if it cannot be written, for example on a full disk.
    """
    # The texts come last: a truncated file lacks them and is recognized as damaged.
    tensors = {**variables, STATE: state, SPEC: spec}
    path = folder / checkpoint_name(step)
    unfinished = temporary_names.temporary_path(path)
    try:
        unfinished.mkdir()
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=str(unfinished / path.name),
                tensor_names=list(tensors),
                shape_and_slices=[""] * len(tensors),
                tensors=list(map(tf.convert_to_tensor, tensors.values())),
            )
        for part in unfinished.iterdir():
            files.sync_file(part)
        index = pathlib.Path(f"{path}.index")
        if index.exists():
            # A run that was stopped during the validation after an epoch resumes from
            # a checkpoint of the epoch's last step and saves this step again.
            checkpoint_replacement.back_up(path)
            # The old index does not match the new data.
            index.unlink()
            files.sync_folder(folder)
        checkpoint_replacement.move_into_place(unfinished, path)
    except tf.errors.OpError as error:
        raise system_errors.of_library("TensorFlow", error.message, folder) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        checkpoint_replacement.settle(path)
    return str(path)
