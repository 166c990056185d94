"""Which shard cannot be read: TensorFlow does not say."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence, Set

import tensorflow as tf

from u2net_tf.errors import InputError
from u2net_tf.shards.manifest import Manifest
from u2net_tf.shards.records import COMPRESSION_TYPES


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
    """Checks of which cases records are that were read.

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
