"""Whether the files of shards are as large as their manifest says.

No record is decoded: it takes as long as opening the files. What the records hold is
compared as they are read (`reading`), and by `data_prep.verify`.
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
# Of a TFRecord, around each record: its length and two checksums.
FRAME_BYTES = 16
# The first bytes of each gzip file, and the last ones: its size, modulo 2 ** 32.
_GZIP_MAGIC, _GZIP_SIZE_BYTES = b"\x1f\x8b\x08", 4


def entries_by_shard(
    manifest: Manifest, cases: Collection[str]
) -> dict[str, list[CaseEntry]]:
    """Names of the shards of some cases, in order -> their entries, as they lie there.

    Args:
      manifest: of the domain's shards.
      cases: all cases of a group of the plan, or of several groups.

    Raises:
      InputError: if a shard also holds other cases.
    """
    entries: dict[str, list[CaseEntry]] = {name: [] for name in manifest.shards(cases)}
    for entry in manifest.entries(cases):
        entries[entry.shard].append(entry)
    return entries


def check_shard_files(folder: pathlib.Path, manifest: Manifest) -> None:
    """Checks the sizes of all shards of a domain.

    Args:
      folder: of the shards.
      manifest: of the shards.

    Raises:
      InputError: as of `check_shard_file`.
    """
    cases = [entry.case for entry in manifest.cases]
    for name, entries in entries_by_shard(manifest, cases).items():
        check_shard_file(folder / name, entries, manifest.compression)


def check_shard_file(
    path: str | os.PathLike, entries: Sequence[CaseEntry], compression: Compression
) -> None:
    """Checks a shard's size, and whether it is compressed as it should be.

    Args:
      path: of the shard.
      entries: of its records, in order.
      compression: of the manifest.

    Raises:
      InputError: if it cannot be read, or has another size or compression; it names
        the first case whose record is not whole.
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
    whole = sum(end <= size for end in ends)
    received = f"{size}"
    if head == _GZIP_MAGIC:
        received += ", compressed with gzip"
    elif whole < len(ends):
        received += f", which end before the record of {entries[whole].case} does"
    raise InputError(
        path,
        expected=f"{ends[-1]} bytes, of {quantity(len(entries), 'record')}",
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
        received = f"{size} bytes that are not compressed" if size else "an empty file"
    elif int.from_bytes(tail, "little") != expected % 2**32:
        received = "another size at the end of the file, as if it were cut"
    if received:
        records = quantity(len(entries), "record")
        raise InputError(
            path,
            expected=f"{expected} bytes, of {records}, compressed with gzip",
            received=received,
            hint=VERIFY,
        )


def _framed_bytes(entry: CaseEntry) -> int:
    return entry.num_bytes + FRAME_BYTES
