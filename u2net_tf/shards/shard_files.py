"""Checks the file sizes of shards against their manifest.

No record is decoded, so this takes no longer than opening the files. The contents of
records are checked when they are read (`reading`) and by `data_prep.verify`.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Collection, Sequence

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.shards.manifest import CaseEntry, Compression, Manifest
from u2net_tf.wording import quantity

VERIFY = "`python -m data_prep.verify` checks all shards"
# Bytes that TFRecord adds to each record: its length and two checksums.
FRAME_BYTES = 16
# A gzip file begins with a magic number and ends with its uncompressed size mod 2**32.
_GZIP_MAGIC, _GZIP_SIZE_BYTES = b"\x1f\x8b\x08", 4


def entries_by_shard(
    manifest: Manifest, cases: Collection[str]
) -> dict[str, list[CaseEntry]]:
    """Returns shard name -> entries of its records, both in order.

    Args:
      manifest: manifest of the domain's shards.
      cases: all cases of one or several groups of the plan.

    Raises:
      InputError: if a shard also contains other cases.
    """
    entries: dict[str, list[CaseEntry]] = {name: [] for name in manifest.shards(cases)}
    for entry in manifest.entries(cases):
        entries[entry.shard].append(entry)
    return entries


def check_shard_files(folder: pathlib.Path, manifest: Manifest) -> None:
    """Checks the sizes of all shards of a domain.

    Args:
      folder: folder of the shards.
      manifest: manifest of the shards.

    Raises:
      InputError: see `check_shard_file`.
    """
    cases = [entry.case for entry in manifest.cases]
    for name, entries in entries_by_shard(manifest, cases).items():
        check_shard_file(folder / name, entries, manifest.compression)


def check_shard_file(
    path: str | os.PathLike, entries: Sequence[CaseEntry], compression: Compression
) -> None:
    """Checks the size and the compression of a shard.

    Args:
      path: path of the shard.
      entries: manifest entries of its records, in order.
      compression: compression according to the manifest.

    Raises:
      InputError: if the shard is unreadable, or its size or compression is wrong; names
        the first case with an incomplete record.
    """
    try:
        with pathlib.Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(len(_GZIP_MAGIC))
            file.seek(max(0, size - _GZIP_SIZE_BYTES))
            tail = file.read()
    except FileNotFoundError:
        raise InputError(
            path, expected="a shard", received=files.what_is_at(path)
        ) from None
    except OSError as error:
        raise InputError(
            path, expected="a readable shard", received=error.strerror
        ) from None
    if compression == "gzip":
        _check_gzip(path, entries, size, head, tail)
    else:
        _check_plain(path, entries, size, head)


def _check_plain(
    path: str | os.PathLike, entries: Sequence[CaseEntry], size: int, head: bytes
) -> None:
    ends = list(itertools.accumulate(map(_framed_bytes, entries)))
    if size == ends[-1]:
        return
    num_complete = sum(end <= size for end in ends)
    received = f"{size}"
    if head == _GZIP_MAGIC:
        received += ", compressed with gzip"
    elif num_complete < len(ends):
        received += f", truncated in the record of {entries[num_complete].case}"
    raise InputError(
        path,
        expected=f"{ends[-1]} bytes in {quantity(len(entries), 'record')}",
        received=received,
        hint=VERIFY,
    )


def _check_gzip(
    path: str | os.PathLike,
    entries: Sequence[CaseEntry],
    size: int,
    head: bytes,
    tail: bytes,
) -> None:
    expected = sum(map(_framed_bytes, entries))
    received = ""
    if head != _GZIP_MAGIC:
        received = f"{size} uncompressed bytes" if size else "an empty file"
    elif int.from_bytes(tail, "little") != expected % 2**32:
        received = "a different size at the end of the file, which may be truncated"
    if received:
        records = quantity(len(entries), "record")
        raise InputError(
            path,
            expected=f"{expected} bytes in {records}, compressed with gzip",
            received=received,
            hint=VERIFY,
        )


def _framed_bytes(entry: CaseEntry) -> int:
    return entry.num_bytes + FRAME_BYTES
