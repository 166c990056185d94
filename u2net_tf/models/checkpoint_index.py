"""Reads names, shapes and texts of a checkpoint without TensorFlow.

A checkpoint is what TensorFlow calls a tensor bundle: an index and files with the
values. The index is an uncompressed LevelDB table of sorted keys. The key "" stores the
number of value files; every other key is the name of a tensor.

Reference: `tensorflow/core/util/tensor_bundle/tensor_bundle.cc`,
`tensorflow/core/protobuf/tensor_bundle.proto` and LevelDB's `doc/table_format.md`.
"""

from __future__ import annotations

import functools
import os
import pathlib
import struct
from collections.abc import Container, Iterator
from typing import NamedTuple

from u2net_tf import protocol_buffers
from u2net_tf.errors import InputError
from u2net_tf.models import object_graph
from u2net_tf.protocol_buffers import read_varint

# Names of the texts in a checkpoint: the model's specification and the run's state.
SPEC, STATE = "spec", "state"
_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
# After each block: its compression type and checksum.
_TRAILER_BYTES = 5
_STRING = 7
# A text has a few hundred bytes per case of the plan.
_MAX_TEXT_BYTES = 1 << 28


class DamagedCheckpointError(InputError):
    """A checkpoint that is truncated or corrupt."""


class RemovedCheckpointError(InputError):
    """A checkpoint that was removed after it was listed."""


def require_not_removed(path: str | os.PathLike) -> None:
    """Checks that an unreadable checkpoint was not removed by a running training.

    Args:
      path: the checkpoint, which could not be read.

    Raises:
      RemovedCheckpointError: if its index, which is removed first, no longer exists.
    """
    if not pathlib.Path(f"{path}.index").is_file():
        raise RemovedCheckpointError(
            path,
            expected="a checkpoint that is kept while it is read",
            received="one that was removed, probably by a training run",
        )


def text_names(names: Container[str], path: str | os.PathLike) -> tuple[str, str]:
    """Returns the names of the specification and the state in any version's checkpoint.

    Args:
      names: all names in the checkpoint.
      path: the checkpoint, for error messages.

    Raises:
      InputError: if it is not a checkpoint of this package.
    """
    found = (SPEC, STATE)
    if object_graph.has_object_graph(names):
        found = object_graph.spec_and_state_keys()
    if found[0] not in names:
        raise InputError(
            path,
            expected="a checkpoint of u2net_tf.train",
            received="one without a plan",
        )
    return found


class TensorEntry(NamedTuple):
    """Index entry of a tensor.

    Attributes:
      dtype: number of its type in TensorFlow's `DataType`.
      shape: size of each axis.
      shard: number of the file that contains its values.
      offset: position of the values in that file, bytes.
      size: size of the values, bytes.
      checksum: masked CRC-32C of the values.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


class CheckpointIndex:
    """The index of a checkpoint.

    Args:
      path: the checkpoint, without ".index".

    Attributes:
      entries: name -> index entry of the tensor.

    Raises:
      DamagedCheckpointError: if the index or a file of values is truncated or corrupt.
      OSError: if a file cannot be read.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = str(path)
        index = pathlib.Path(f"{self.path}.index").read_bytes()
        try:
            items = dict(_table_items(index))
            self._num_shards = protocol_buffers.read(items.pop(b"")).number(1)
            self.entries = {
                name.decode(): _entry(value) for name, value in items.items()
            }
        except (LookupError, ValueError, struct.error) as error:
            raise self._damaged(error) from None
        self._check_sizes()

    def text(self, name: str) -> bytes:
        """Returns the value of a scalar string tensor.

        Raises:
          DamagedCheckpointError: if there is no such tensor, or it is corrupt.
          OSError: if the file cannot be read.
        """
        entry = self.entries.get(name)
        if entry is None or (entry.dtype, entry.shape) != (_STRING, ()):
            raise self._damaged(f"no text {name!r}")
        if entry.size > _MAX_TEXT_BYTES:
            raise self._damaged(f"a text of {entry.size} bytes")
        with self._shard(entry.shard).open("rb") as stream:
            stream.seek(entry.offset)
            data = stream.read(entry.size)
        try:
            length, start = read_varint(data, 0)
            text = data[start + 4 :]
            # The checksum covers the length as uint32, the length's checksum, the text.
            summed = struct.pack("<I", length) + data[start : start + 4] + text
        except (LookupError, struct.error) as error:
            raise self._damaged(error) from None
        if len(text) != length or _masked_crc32c(summed) != entry.checksum:
            raise self._damaged(f"the checksum of {name!r} does not match")
        return text

    def _shard(self, number: int) -> pathlib.Path:
        return pathlib.Path(f"{self.path}.data-{number:05}-of-{self._num_shards:05}")

    def _check_sizes(self) -> None:
        needed: dict[int, int] = {}
        for entry in self.entries.values():
            end = entry.offset + entry.size
            needed[entry.shard] = max(end, needed.get(entry.shard, 0))
        for number, size in needed.items():
            path = self._shard(number)
            found = path.stat().st_size if path.is_file() else 0
            if found < size:
                raise self._damaged(f"{found} of {size} bytes in {path.name}")

    def _damaged(self, problem: object) -> DamagedCheckpointError:
        return DamagedCheckpointError(
            self.path,
            expected="an undamaged checkpoint",
            received=f"a truncated or corrupt one: {problem}",
        )


def _table_items(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a table in LevelDB's format."""
    footer = data[-_FOOTER_BYTES:]
    (magic,) = struct.unpack("<Q", footer[-8:])
    if len(footer) < _FOOTER_BYTES or magic != _MAGIC:
        raise ValueError("not a table of tensors")
    _, end = _handle(footer, 0)
    index, _ = _handle(footer, end)
    for _, value in _block_items(_block(data, *index)):
        handle, _ = _handle(value, 0)
        yield from _block_items(_block(data, *handle))


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Returns a block's offset and size, and the end position of its handle."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    kind, checksum = struct.unpack("<BI", data[end : end + _TRAILER_BYTES])
    if kind != 0 or _masked_crc32c(data[offset : end + 1]) != checksum:
        raise ValueError("the checksum of a block does not match")
    return data[offset:end]


def _block_items(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and values; keys are stored without their common prefix."""
    (num_restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (num_restarts + 1)
    position, key = 0, b""
    while position < end:
        # Length of the prefix shared with the previous key, and of the rest.
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        size, position = read_varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + size]
        position += size


def _entry(message: bytes) -> TensorEntry:
    fields = protocol_buffers.read(message)
    (shape,) = fields.messages(2) or [protocol_buffers.read(b"")]
    return TensorEntry(
        dtype=fields.number(1),
        shape=tuple(size.number(1) for size in shape.messages(2)),
        shard=fields.number(3),
        offset=fields.number(4),
        size=fields.number(5),
        checksum=fields.number(6),
    )


@functools.cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _masked_crc32c(data: bytes) -> int:
    """Returns the checksum in the masked form in which LevelDB stores it."""
    table, crc = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
