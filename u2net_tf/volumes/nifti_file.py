"""NIfTI files: the header is checked before voxels are read, then every byte."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO, Literal

import nibabel as nib
import numpy as np
from nibabel import spatialimages

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.volumes import gzip_stream, nifti_header
from u2net_tf.volumes.gzip_stream import DamagedError, GzipStream
from u2net_tf.volumes.memory import require_memory

# By the length of the header, which is stored in its first four bytes.
_CLASSES = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
_BYTE_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
# Valid `eol_check` of NIfTI-2; programs that handle the file as text change it.
_LINE_ENDS = ((0, 0, 0, 0), (13, 10, 26, 10))
# After the voxels, up to their size plus this many bytes are accepted, with a note.
_MAX_EXTRA_BYTES = 2**20
# Memory per voxel: float32 for an image, int32 for a label map. An image is converted
# in the order of the file and then copied to that of its axes.
_BYTES_PER_VOXEL = 4


@dataclasses.dataclass
class NiftiFile:
    """An open file with a valid header and voxels that fit.

    Attributes:
      path: the file.
      header: the header; see `nifti_header.repair`.
      image_class: nibabel's class of the file.
      shape: on disk (x, y, z), or (x, y, z, modality); axes of one voxel after the
        third are removed.
      slope: scale factor of the voxels, 1 for none.
      intercept: offset added after scaling.
      notes: anomalies of the file, for the user. `read` may add some.
    """

    path: pathlib.Path
    header: nib.nifti1.Nifti1Header
    image_class: type[nib.nifti1.Nifti1Image]
    shape: tuple[int, ...]
    slope: float
    intercept: float
    notes: list[str]
    _file: BinaryIO
    _stream: GzipStream | None

    @property
    def offset(self) -> int:
        """Offset of the voxels in the uncompressed file, bytes."""
        return _offset(self.header)

    def read(self) -> np.ndarray:
        """Reads the voxels as stored, and checks what follows them.

        Returns:
          An array with `shape` and the type on disk.

        Raises:
          InputError: if the file is damaged or ends too early.
        """
        dtype = self.header.get_data_dtype()
        array: np.ndarray
        if self._stream is None:
            size = os.fstat(self._file.fileno()).st_size
            array = np.memmap(
                self._file, dtype, "c", self.offset, shape=self.shape, order="F"
            )
            surplus = size - self.offset - array.nbytes
        else:
            array = np.empty(self.shape, dtype, order="F")
            buffer = array.reshape(-1, order="F").view(np.uint8).data
            received = _read_into(self._stream, buffer, self.path)
            if received < array.nbytes:
                raise InputError(
                    self.path,
                    expected=f"as many voxels as its header says, {array.nbytes:,} "
                    "bytes",
                    received=f"{received:,} bytes; the rest is missing",
                )
            # A few bytes of gzip may expand to many gigabytes.
            surplus = _drain(self._stream, self.path, array.nbytes + _MAX_EXTRA_BYTES)
            surplus += self._stream.surplus_bytes
        if surplus > array.nbytes + _MAX_EXTRA_BYTES:
            raise InputError(
                self.path,
                expected=f"the end of the file after voxels of {array.nbytes:,} bytes "
                f"(shape {self.shape} of {dtype})",
                received=f"at least {surplus:,} more bytes",
                hint="The header may be that of another file",
            )
        if surplus:
            plural = "" if surplus == 1 else "s"
            self.notes.append(f"{surplus:,} byte{plural} after the last voxel, ignored")
        return array


@contextlib.contextmanager
def open_nifti(
    path: str | os.PathLike, *, max_memory_gb: float | None = None
) -> Iterator[NiftiFile]:
    """Opens a file, compressed or not, regardless of its name, and checks its header.

    Args:
      path: the file.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: if it is not a NIfTI file, its header is invalid, or its voxels cannot
        fit into the file or into memory.
    """
    path = pathlib.Path(path)
    try:
        if not path.is_file():
            raise InputError(path, expected="a file", received=files.what_is_at(path))
        with path.open("rb") as file:
            yield _open(file, path, max_memory_gb)
    except OSError as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _open(file: BinaryIO, path: pathlib.Path, max_memory_gb: float | None) -> NiftiFile:
    size = os.fstat(file.fileno()).st_size
    is_gzip = file.read(2) == gzip_stream.MAGIC
    file.seek(0)
    stream = GzipStream(file) if is_gzip else None
    header, image_class = _read_header(stream or file, path)
    shape = _checked_shape(header, path)
    slope, intercept = _scaling(header, path)
    dtype = header.get_data_dtype()
    voxels = math.prod(shape)
    num_bytes = _checked_offset(header, path) + voxels * dtype.itemsize
    max_bytes = size * gzip_stream.MAX_RATIO if is_gzip else size
    if num_bytes > max_bytes:
        raise InputError(
            path,
            expected=f"as many voxels as its header says, {num_bytes:,} bytes with the "
            f"header (shape {shape} of {dtype})",
            received=f"{size:,} bytes{' of gzip' if is_gzip else ''}; the rest is "
            "missing",
        )
    require_memory(
        path,
        max(num_bytes, voxels * _BYTES_PER_VOXEL) + voxels * _BYTES_PER_VOXEL,
        content=f"shape {shape} of {dtype}",
        max_memory_gb=max_memory_gb,
    )
    header, notes = nifti_header.repair(header, path)
    bits = int(header["bitpix"])
    if bits != 8 * dtype.itemsize:
        notes.append(f"bitpix is {bits}; using {8 * dtype.itemsize}, as for {dtype}")
        header["bitpix"] = 8 * dtype.itemsize
    if not int(header["vox_offset"]):
        notes.append(f"vox_offset is 0; using {_offset(header)}, after the header")
    _read_extensions(stream or file, header, path, notes)
    return NiftiFile(
        path, header, image_class, shape, slope, intercept, notes, file, stream
    )


def _read_header(
    stream: BinaryIO | GzipStream, path: pathlib.Path
) -> tuple[nib.nifti1.Nifti1Header, type[nib.nifti1.Nifti1Image]]:
    start = bytearray(4)
    received = bytes(start[: _read_into(stream, memoryview(start), path)])
    for order in _BYTE_ORDERS:
        length = int.from_bytes(start, _BYTE_ORDERS[order])
        if length in _CLASSES:
            break
    else:
        problem = (
            f"a file that begins with {received!r}" if received else "an empty file"
        )
        raise _unreadable(path, problem)
    rest = bytearray(length - len(start))
    if _read_into(stream, memoryview(rest), path) < len(rest):
        raise _unreadable(path, "a file that ends within its header")
    image_class = _CLASSES[length]
    # Not checked by nibabel: `nifti_header` also reports what it replaces.
    header = image_class.header_class(bytes(start + rest), order, check=False)
    magic = header["magic"].item()
    if magic != header.single_magic:
        pair = magic == header.pair_magic
        raise InputError(
            path,
            expected="a NIfTI file with header and voxels in one",
            received="the header of a pair of files" if pair else f"magic {magic!r}",
        )
    if "eol_check" in header and tuple(header["eol_check"]) not in _LINE_ENDS:
        raise _unreadable(path, "a header in which line ends were converted")
    return header, image_class


def _checked_shape(
    header: nib.nifti1.Nifti1Header, path: pathlib.Path
) -> tuple[int, ...]:
    try:
        dtype = header.get_data_dtype()
    except (KeyError, spatialimages.HeaderDataError):
        raise InputError(
            path,
            expected="one number per voxel",
            received=f"data type {int(header['datatype'])}, which is unknown",
        ) from None
    num_axes = int(header["dim"][0])
    if not 0 < num_axes < len(header["dim"]):
        raise InputError(
            path,
            expected="a 3-D volume, or a 4-D volume of several modalities",
            received=f"a shape of {num_axes} axes",
        )
    try:
        stored = tuple(int(size) for size in header.get_data_shape())
    except spatialimages.HeaderDataError as error:
        raise _unreadable(path, error) from error
    if dtype.kind not in "iuf":
        raise InputError(
            path, expected="one number per voxel", received=f"data type {dtype}"
        )
    shape = stored
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise InputError(
            path,
            expected="a 3-D volume, or a 4-D volume of several modalities",
            received=f"shape {stored}",
        )
    return shape


def _scaling(
    header: nib.nifti1.Nifti1Header, path: pathlib.Path
) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # In the standard, a slope of 0 means no scaling; nibabel writes NaN instead.
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(
            path,
            expected="finite numbers as scl_slope and scl_inter",
            received=f"{slope:g} and {intercept:g}",
        )
    return slope, intercept


def _checked_offset(header: nib.nifti1.Nifti1Header, path: pathlib.Path) -> int:
    offset, minimum = float(header["vox_offset"]), header.single_vox_offset
    if offset and not (offset >= minimum and offset.is_integer()):
        raise InputError(
            path,
            expected=f"vox_offset, an integer of at least {minimum}",
            received=f"{offset:g}",
        )
    return _offset(header)


def _offset(header: nib.nifti1.Nifti1Header) -> int:
    return int(header["vox_offset"]) or header.single_vox_offset


def _read_extensions(
    stream: BinaryIO | GzipStream,
    header: nib.nifti1.Nifti1Header,
    path: pathlib.Path,
    notes: list[str],
) -> None:
    """Reads extensions, between header and voxels, which label maps inherit."""
    block = bytearray(_offset(header) - header.sizeof_hdr)
    _read_into(stream, memoryview(block), path)
    if not block[0]:
        return
    order = _BYTE_ORDERS[header.endianness]
    start = 4
    while len(block) - start >= 16:
        size = int.from_bytes(block[start : start + 4], order)
        if size % 16 or not 16 <= size <= len(block) - start:
            notes.append("header extensions that cannot be read, ignored")
            return
        start += size
    swapped = header.endianness != nib.volumeutils.native_code
    header.extensions = header.exts_klass.from_fileobj(
        io.BytesIO(block[4:]), len(block) - 4, swapped
    )


def _read_into(
    stream: BinaryIO | GzipStream, buffer: memoryview, path: pathlib.Path
) -> int:
    try:
        # Uncompressed files are raw or buffered, which have `readinto` as well.
        return stream.readinto(buffer)  # type: ignore[union-attr]
    except DamagedError as error:
        raise _unreadable(path, error) from error


def _drain(stream: GzipStream, path: pathlib.Path, limit: int) -> int:
    try:
        return stream.drain(limit)
    except DamagedError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, received: object) -> InputError:
    return InputError(path, expected="a readable NIfTI file", received=received)
