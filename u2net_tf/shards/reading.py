"""Opening shards, and which of them cannot be read: TensorFlow does not say."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Collection, Iterator, Sequence, Set

import tensorflow as tf

from u2net_tf.errors import InputError
from u2net_tf.shards.manifest import Manifest
from u2net_tf.shards.records import COMPRESSION_TYPES

# TensorFlow warns where it is left to choose.
_BUFFER_BYTES = 1 << 20


def open_shards(
    paths: str | Sequence[str] | tf.Tensor, compression: str
) -> tf.data.Dataset:
    """The serialized records of some shards, one shard after the other.

    Args:
      paths: of the shards, in this order.
      compression: one of `manifest.COMPRESSIONS`.

    Returns:
      A `tf.data.Dataset` of scalar strings.
    """
    kind = COMPRESSION_TYPES[compression]
    return tf.data.TFRecordDataset(paths, kind, buffer_size=_BUFFER_BYTES)


def shard_paths(
    data_dir: str | os.PathLike, manifest: Manifest, cases: Collection[str]
) -> list[str]:
    """Paths of the shards that hold some cases, and no others.

    Args:
      data_dir: folder that `data_prep.convert` wrote.
      manifest: of the domain's shards.
      cases: all cases of a group of the plan, or of several groups.

    Raises:
      InputError: if a shard is missing or also holds other cases.
    """
    folder = pathlib.Path(data_dir) / manifest.domain
    paths = [folder / name for name in manifest.shards(cases)]
    for path in paths:
        if not path.is_file():
            raise InputError(path, expected="a shard", received="no such file")
    return [str(path) for path in paths]


def serialized_records(
    data_dir: str | os.PathLike, manifest: Manifest, cases: Collection[str]
) -> tf.data.Dataset:
    """The serialized records of some cases, in the order of the shards.

    Args:
      data_dir: folder that `data_prep.convert` wrote.
      manifest: of the domain's shards.
      cases: all cases of a group of the plan, or of several groups.

    Raises:
      InputError: if a shard is missing or also holds other cases.
    """
    return open_shards(shard_paths(data_dir, manifest, cases), manifest.compression)


@contextlib.contextmanager
def translate_tf_errors(
    data_dir: str | os.PathLike, manifests: Sequence[Manifest]
) -> Iterator[None]:
    """Turns TensorFlow's errors of reading into one that names the damaged shard.

    Args:
      data_dir: folder that `data_prep.convert` wrote.
      manifests: of the shards that are read inside.

    Raises:
      InputError: names the shard.
    """
    try:
        yield
    except tf.errors.OpError as error:
        _check_readable(data_dir, manifests)
        names = ", ".join(manifest.domain for manifest in manifests)
        raise InputError(
            f"{data_dir}: {names}",
            expected="records as the manifest says",
            received=" ".join(error.message.split())[-300:],
            hint="`python -m data_prep.verify` checks all of them",
        ) from error


def check_cases(
    data_dir: str | os.PathLike, domain: str, cases: Set[str], expected: Set[str]
) -> None:
    """Checks which cases the records that were read belong to.

    Args:
      data_dir: folder that `data_prep.convert` wrote.
      domain: the domain's name.
      cases: the cases that the records say they are of.
      expected: the cases that the manifest says the shards hold.

    Raises:
      InputError: if a record is of another case, which may be one of another split.
    """
    if others := sorted(cases - expected):
        raise InputError(
            f"{data_dir}: {domain}",
            expected="records of the cases that the manifest says",
            received=f"a record of {others[0]}",
            hint="`python -m data_prep.verify` checks all of them",
        )


def _check_readable(data_dir: str | os.PathLike, manifests: Sequence[Manifest]) -> None:
    """Raises `InputError` for the first shard that cannot be read."""
    for manifest in manifests:
        for name in sorted({entry.shard for entry in manifest.cases}):
            path = pathlib.Path(data_dir) / manifest.domain / name
            try:
                for _ in open_shards(str(path), manifest.compression):
                    pass
            except tf.errors.OpError as error:
                raise InputError(
                    path,
                    expected="a readable shard",
                    received=error.message,
                    hint="`python -m data_prep.verify` checks all of them",
                ) from error
