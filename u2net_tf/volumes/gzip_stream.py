"""Reading of a gzip stream to its end, where its checksum is."""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

MAGIC = b"\x1f\x8b"
# No deflate stream grows by more than this factor.
MAX_RATIO = 1032
# Compressed bytes that are read, and others that are made of them, at a time.
_READ_BYTES, _CHUNK_BYTES = 2**17, 2**20
# `zlib` is to expect the header and the checksum of gzip.
_GZIP_WINDOW = 31


class DamagedError(Exception):
    """A stream that is not what was written; says why."""


class GzipStream:
    """The content of a gzip file of one or several members.

    zlib compares the checksum when a member has been read to its end: whoever stops
    where the last byte of interest is never learns that the content is damaged.

    Attributes:
      surplus_bytes: bytes on disk that follow the last member and are no gzip stream;
        known once all is read.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        self._pending = b""
        self._ended = False
        self.surplus_bytes = 0

    def readinto(self, buffer: memoryview) -> int:
        """Fills a buffer of bytes, unless the stream ends before; returns how many.

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
        """Reads to the end, or beyond a limit; returns how many bytes there were.

        Args:
          limit: bytes after which it stops; the checksum is not compared then.

        Raises:
          DamagedError: as for `readinto`.
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
                made = self._inflate.decompress(data, size)
            except zlib.error as error:
                raise DamagedError(_in_words(error)) from error
            self._pending = self._inflate.unconsumed_tail
            if made:
                return made
            if not data and not self._inflate.eof:
                raise DamagedError("cut short: the gzip stream has no end")

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


def _in_words(error: zlib.error) -> str:
    text = str(error)
    if "incorrect data check" in text or "incorrect length check" in text:
        return "damaged (CRC): the checksum is not that of the content"
    return f"damaged ({text.rpartition(': ')[2]})"
