"""Reading of a gzip stream up to and including its checksum."""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

MAGIC = b"\x1f\x8b"
# Largest factor by which deflate can compress.
MAX_RATIO = 1032
# Compressed bytes to read, and uncompressed bytes to produce, at a time.
_READ_BYTES, _CHUNK_BYTES = 2**17, 2**20
# Makes `zlib` expect the header and the checksum of gzip.
_GZIP_WINDOW = 31


class DamagedError(Exception):
    """A truncated or corrupt stream."""


class GzipStream:
    """The content of a gzip file of one or several members.

    zlib verifies the checksum only at the end of a member: a reader that stops after
    the last byte it needs never notices that the content is damaged.

    Attributes:
      surplus_bytes: bytes on disk that follow the last member and are not gzip; known
        once everything has been read.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        self._pending = b""
        self._ended = False
        self.surplus_bytes = 0

    def readinto(self, buffer: memoryview) -> int:
        """Fills a buffer, unless the stream ends first; returns the number of bytes.

        Raises:
          DamagedError: if the stream is damaged or ends within a member.
        """
        filled = 0
        while filled < len(buffer):
            chunk = self._read(min(_CHUNK_BYTES, len(buffer) - filled))
            if not chunk:
                break
            buffer[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        return filled

    def drain(self, limit: int) -> int:
        """Reads to the end, or just beyond a limit; returns the number of bytes.

        Args:
          limit: number of bytes after which to stop, without verifying the checksum.

        Raises:
          DamagedError: see `readinto`.
        """
        count = 0
        while count <= limit and (chunk := self._read(_CHUNK_BYTES)):
            count += len(chunk)
        return count

    def _read(self, size: int) -> bytes:
        while True:
            if self._ended or (self._inflate.eof and not self._begin_next_member()):
                return b""
            data = self._pending or self._file.read(_READ_BYTES)
            try:
                chunk = self._inflate.decompress(data, size)
            except zlib.error as error:
                raise DamagedError(_describe(error)) from error
            self._pending = self._inflate.unconsumed_tail
            if chunk:
                return chunk
            if not data and not self._inflate.eof:
                raise DamagedError("truncated: the gzip stream has no end")

    def _begin_next_member(self) -> bool:
        rest = self._inflate.unused_data
        while len(rest) < len(MAGIC) and (more := self._file.read(_READ_BYTES)):
            rest += more
        if not rest.startswith(MAGIC):
            size = os.fstat(self._file.fileno()).st_size
            self.surplus_bytes = len(rest) + size - self._file.tell()
            self._ended = True
            return False
        self._inflate, self._pending = zlib.decompressobj(_GZIP_WINDOW), rest
        return True


def _describe(error: zlib.error) -> str:
    text = str(error)
    if "incorrect data check" in text or "incorrect length check" in text:
        return "damaged (CRC): the checksum does not match the content"
    return f"damaged ({text.rpartition(': ')[2]})"
