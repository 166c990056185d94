"""The bytes of a DICOM file, of which no reader makes more than fit."""

from __future__ import annotations

import mmap
import zlib

# What a deflated file may hold: a header, and pixels of one file.
MAX_INFLATED_BYTES = 2**29
_READ_BYTES, _CHUNK_BYTES = 2**14, 2**20


class DicomContent(mmap.mmap):
    """A file that pydicom reads.

    As it is mapped into the memory, no more is read than there is, whatever length a
    damaged header states.
    """

    def read(self, n: int | None = None, /) -> bytes:
        """Reads bytes; all that are left only where pydicom inflates them next.

        Raises:
          ValueError: if it would make more of them than a file of pixels has.
        """
        if n is None:
            self._require_inflated_bytes()
        return super().read(n)

    def _require_inflated_bytes(self) -> None:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        total, start = 0, self.tell()
        rest = b""
        while not inflater.eof:
            if not rest:
                rest = self[start : start + _READ_BYTES]
                start += len(rest)
                if not rest:
                    return
            total += len(inflater.decompress(rest, _CHUNK_BYTES))
            rest = inflater.unconsumed_tail
            if total > MAX_INFLATED_BYTES:
                raise ValueError(
                    f"deflated, and more than {MAX_INFLATED_BYTES:,} bytes"
                )
