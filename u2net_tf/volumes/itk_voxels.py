"""The voxels of NRRD and MetaImage files as bytes, checked before ITK reads them."""

from __future__ import annotations

import dataclasses
import pathlib
import zlib

from u2net_tf.errors import InputError
from u2net_tf.wording import quantity

_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class StoredVoxels:
    """Size and encoding of the voxels according to the header.

    Attributes:
      offset: offset of the first byte after the header.
      num_values: number of values; a voxel may have several.
      num_bytes: uncompressed size of the values.
      window_bits: zlib window bits of compressed voxels; None for others.
    """

    offset: int
    num_values: int
    num_bytes: int
    window_bits: int | None


def check_voxels(path: pathlib.Path, content: StoredVoxels) -> None:
    """Checks that the voxels are undamaged and of the size that the header states.

    Raises:
      InputError: if they are damaged or of a different size.
    """
    received = path.stat().st_size - content.offset
    if content.window_bits is not None:
        received = _inflated_bytes(path, content)
    if received != content.num_bytes:
        raise InputError(
            path,
            expected=f"{content.num_bytes} bytes of voxels",
            received=f"{received} bytes",
        )


def _inflated_bytes(path: pathlib.Path, content: StoredVoxels) -> int:
    """Counts the bytes of the compressed voxels, and verifies their checksum.

    Stops after the first chunk beyond the expected size.
    """
    inflater = zlib.decompressobj(content.window_bits or 0)
    total = 0
    with path.open("rb") as file:
        file.seek(content.offset)
        rest = b""
        while not inflater.eof and total <= content.num_bytes:
            rest = rest or file.read(_CHUNK_BYTES)
            try:
                chunk = inflater.decompress(rest, _CHUNK_BYTES)
            except zlib.error as error:
                raise InputError(
                    path, expected="undamaged voxels", received=error
                ) from error
            rest = inflater.unconsumed_tail
            if not chunk and not rest and not file.peek(1):
                raise InputError(
                    path,
                    expected=f"{content.num_bytes} bytes of voxels",
                    received=f"the end of the file after {total}",
                )
            total += len(chunk)
        surplus = len(inflater.unused_data) + len(file.read(_CHUNK_BYTES))
    if inflater.eof and surplus:
        raise InputError(
            path,
            expected="the end of the file after the voxels",
            received=f"at least {quantity(surplus, 'byte')} more",
        )
    return total
