"""TensorBoard event files: one curve per metric, also if the run was interrupted."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
from collections.abc import Mapping

import tensorflow as tf


class TensorBoardLog:
    """Writes scalars.

    Args:
      folder: folder of the event files.
      last_step: last step to keep; scalars of later steps, left by a run that was
        killed before it saved a checkpoint, are removed.
    """

    def __init__(self, folder: pathlib.Path, *, last_step: int):
        for path in folder.glob("events.out.tfevents.*"):
            _truncate(path, last_step)
        self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step.

        Args:
          step: position on the horizontal axis.
          scalars: tag -> value; NaN values are skipped.
        """
        with self._writer.as_default():
            for tag, value in scalars.items():
                if not math.isnan(value):
                    tf.summary.scalar(tag, value, step=step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


def _truncate(path: pathlib.Path, last_step: int) -> None:
    """Removes the events after a step, and an incomplete last one.

    TensorBoard would show them alongside those that a resumed run writes.
    """
    size = 0
    # Length and two checksums of a record.
    frame = 8 + 4 + 4
    with contextlib.suppress(tf.errors.DataLossError):
        for record in tf.data.TFRecordDataset(str(path), buffer_size=1 << 20):
            serialized = record.numpy()
            if tf.compat.v1.Event.FromString(serialized).step > last_step:
                break
            size += frame + len(serialized)
    if size < path.stat().st_size:
        os.truncate(path, size)
