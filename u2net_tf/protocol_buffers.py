"""Reads and writes protocol buffers by field number, without TensorFlow's classes.

Reference: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_VARINT, _64_BIT, _BYTES, _32_BIT = 0, 1, 2, 5


class Message:
    """A message; a missing field is 0, "" or an empty list.

    Args:
      values: field number -> its values, in order.
    """

    def __init__(self, values: Mapping[int, list[int | bytes]]):
        self._values = values

    def number(self, field: int) -> int:
        """Returns the value of a numeric field.

        Raises:
          ValueError: if the field is not numeric.
        """
        value = self._values.get(field, [0])[-1]
        if not isinstance(value, int):
            raise ValueError(f"bytes in place of the number of field {field}")
        return value

    def text(self, field: int) -> str:
        """Returns the value of a string field.

        Raises:
          ValueError: if the field is not a string.
        """
        (*_, value) = self._all_bytes(field) or [b""]
        return value.decode()

    def messages(self, field: int) -> list[Message]:
        """Returns the values of a field of messages.

        Raises:
          ValueError: if the field does not contain messages.
        """
        return [read(value) for value in self._all_bytes(field)]

    def fields(self) -> frozenset[int]:
        """Returns the numbers of the fields that are present."""
        return frozenset(self._values)

    def numbers(self, field: int) -> list[int]:
        """Returns the values of a repeated numeric field that is not packed.

        Raises:
          ValueError: if the field does not contain numbers.
        """
        values = self._values.get(field, [])
        found = [value for value in values if isinstance(value, int)]
        if len(found) < len(values):
            raise ValueError(f"bytes in place of the numbers of field {field}")
        return found

    def _all_bytes(self, field: int) -> list[bytes]:
        values = self._values.get(field, [])
        found = [value for value in values if isinstance(value, bytes)]
        if len(found) < len(values):
            raise ValueError(f"a number in place of the bytes of field {field}")
        return found


class Field(NamedTuple):
    """A field and its location in a message.

    Attributes:
      number: field number.
      value: a number or bytes.
      start: offset of its first byte, that of the tag.
      end: offset after its last byte.
    """

    number: int
    value: int | bytes
    start: int
    end: int


def read(data: bytes) -> Message:
    """Reads a message.

    Raises:
      ValueError: if the bytes are not a message.
    """
    values: defaultdict[int, list[int | bytes]] = defaultdict(list)
    for field in read_fields(data):
        values[field.number].append(field.value)
    return Message(values)


def read_fields(data: bytes) -> Iterator[Field]:
    """Yields the fields of a message, in order.

    Raises:
      ValueError: if the bytes are not a message.
    """
    position = 0
    while position < len(data):
        start = position
        tag, position = read_varint(data, position)
        kind = tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, position = read_varint(data, position)
        else:
            size = {_64_BIT: 8, _32_BIT: 4}.get(kind, -1)
            if kind == _BYTES:
                size, position = read_varint(data, position)
            value = data[position : position + size]
            if size < 0 or len(value) < size:
                raise ValueError(f"not a protocol buffer, at byte {position}")
            position += size
            if kind != _BYTES:
                value = int.from_bytes(value, "little")
        yield Field(tag >> 3, value, start, position)


def write_bytes(number: int, content: bytes) -> bytes:
    """Encodes a field of bytes, a string or a message."""
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns a varint (seven bits per byte) and the position after it.

    Raises:
      ValueError: if it is longer than ten bytes or truncated.
    """
    value = 0
    for index, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError(f"not a varint, at byte {position}")
