"""Which shard cannot be read: TensorFlow does not say."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from u2net_tf.errors import InputError
from u2net_tf.manifest import Manifest
from u2net_tf.records import COMPRESSION_TYPES


@contextlib.contextmanager
def reading(data_dir: str | os.PathLike, manifests: Sequence[Manifest]) -> Iterator:
    """Looks for the damaged shard where reading fails.

    Args:
      data_dir: folder that `data_prep.convert` wrote.
      manifests: of the shards that are read inside.

    Raises:
      InputError: names the shard.
    """
    try:
        yield
    except tf.errors.OpError:
        _check_readable(data_dir, manifests)
        raise


def _check_readable(data_dir: str | os.PathLike, manifests: Sequence[Manifest]) -> None:
    """Raises `InputError` for the first shard that cannot be read."""
    for manifest in manifests:
        kind = COMPRESSION_TYPES[manifest.compression]
        for name in sorted({entry.shard for entry in manifest.cases}):
            path = pathlib.Path(data_dir) / manifest.domain / name
            try:
                for _ in tf.data.TFRecordDataset(str(path), kind):
                    pass
            except tf.errors.OpError as error:
                raise InputError(
                    path,
                    expected="a readable shard",
                    received=error.message,
                    hint="`python -m data_prep.verify` checks all of them",
                ) from error
