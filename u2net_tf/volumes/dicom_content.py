"""The bytes of a DICOM file, with limits on what damaged headers can allocate."""

from __future__ import annotations

import mmap
import zlib

# Maximum size of an inflated file: a header and the pixels of one file.
MAX_INFLATED_BYTES = 2**29
_READ_BYTES, _CHUNK_BYTES = 2**14, 2**20


class DicomContent(mmap.mmap):
    """A memory-mapped file for pydicom.

    No read goes beyond the end of the file, whatever length a damaged header states.
    """

    def read(self, n: int | None = None, /) -> bytes:
        """Reads `n` bytes; None reads the rest, as pydicom does only to inflate it.

        Raises:
          ValueError: if the rest would inflate to more than `MAX_INFLATED_BYTES`.
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
                    f"deflated data of more than {MAX_INFLATED_BYTES:,} bytes"
                )
