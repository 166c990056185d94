"""Reading of DICOM volumes from folders of slices or multi-frame files.

Headers are read by pydicom and checked; pixels are read by SimpleITK.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.volumes import float32, modalities, nifti
from u2net_tf.volumes.dicom_geometry import stacked_affine, tilt_notes
from u2net_tf.volumes.grid import Volume, log_notes
from u2net_tf.volumes.itk_errors import last_line
from u2net_tf.volumes.itk_geometry import to_grid, to_volume
from u2net_tf.volumes.memory import require_memory

if TYPE_CHECKING:
    from u2net_tf.volumes.dicom_planes import Plane

# Largest difference between direction cosines from ITK and from the header.
_COSINE_TOLERANCE = 1e-2
# All integers up to this one are exact in float32.
_EXACT_IN_FLOAT32 = 2**24
_IMAGE_IO = "GDCMImageIO"
# float32 from ITK, and a copy of it.
_BYTES_PER_VOXEL = 8
# Frames may be float64 in ITK, and sorting them needs another copy.
_BYTES_PER_VOXEL_OF_FRAMES = 16


def load_dicom(
    paths: Sequence[str | os.PathLike], *, max_memory_gb: float | None = None
) -> Volume:
    """Reads one DICOM series per modality.

    Args:
      paths: per modality, a folder with one series, or a multi-frame file.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (C, z, y, x) float32. Its grid is that of a NIfTI file of the same geometry.

    Raises:
      InputError: if a folder contains no series or several, slices are missing, damaged
        or inconsistent, or the series are on different grids.
    """
    volumes = [_read(path, max_memory_gb) for path in paths]
    return volumes[0] if len(volumes) == 1 else modalities.stack(volumes)


def load_header(
    path: str | os.PathLike, *, max_memory_gb: float | None = None
) -> nifti.Header:
    """Reads the headers of all slices of a series, without pixels.

    Nothing is logged: reading the series will log the same notes.

    Args:
      path: a folder with one series, or a multi-frame file.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: see `load_dicom`; damaged pixels are not detected.
    """
    from u2net_tf.volumes.dicom_series import read_series

    planes, _ = read_series(path)
    shape = _checked_shape(path, planes, max_memory_gb)
    affine = stacked_affine(path, planes, planes[0].direction)
    return nifti.Header(shape[::-1], to_grid(shape, affine, path))


def _read(path: str | os.PathLike, max_memory_gb: float | None) -> Volume:
    # pydicom takes a while to import, and few scans are DICOM.
    from u2net_tf.volumes.dicom_monochrome import as_stored
    from u2net_tf.volumes.dicom_series import read_series

    planes, notes = read_series(path)
    logged = log_notes(path, notes)
    shape = _checked_shape(path, planes, max_memory_gb)
    # Before decoding, which is pointless if the planes do not form a grid.
    stacked_affine(path, planes, planes[0].direction)
    with as_stored(planes) as readable:
        if any(plane.header.is_compressed for plane in planes):
            data, direction = _decode(readable, shape)
        else:
            direction = _read_direction(readable[0])
            # Kept until the data is copied: the array is a view of it.
            image = _read_pixels(path, readable, shape)
            data = sitk.GetArrayViewFromImage(image)
    _check_direction(planes[0], direction)
    if planes[0].header.num_frames > 1:
        data = _sort_frames(planes, data)
    affine = stacked_affine(path, planes, direction)
    logged += log_notes(path, [*_rounding_notes(planes, data), *tilt_notes(affine)])
    volume = to_volume(data, affine, path)
    return dataclasses.replace(volume, notes=logged)


def _rounding_notes(planes: list[Plane], data: np.ndarray) -> list[str]:
    """Returns notes on rounding to float32, checked only if values can be inexact."""
    largest = 2.0 ** max(plane.header.integer("BitsStored") for plane in planes)
    rescales = [plane.rescale for plane in planes if plane.rescale]
    largest += max((abs(offset / slope) for slope, offset in rescales), default=0)
    return [] if largest <= _EXACT_IN_FLOAT32 else float32.rounding_notes(data)


def _checked_shape(
    path: str | os.PathLike, planes: list[Plane], max_memory_gb: float | None
) -> tuple[int, ...]:
    """Returns the shape (z, y, x) of the volume if it fits into memory."""
    header = planes[0].header
    shape = (len(planes), header.integer("Rows"), header.integer("Columns"))
    one_file = header.num_frames > 1
    require_memory(
        path,
        math.prod(shape)
        * (_BYTES_PER_VOXEL_OF_FRAMES if one_file else _BYTES_PER_VOXEL),
        content=f"pixels of shape {shape} in float32",
        max_memory_gb=max_memory_gb,
    )
    return shape


def _read_pixels(
    folder: str | os.PathLike, planes: list[Plane], shape: tuple[int, ...]
) -> sitk.Image:
    """Reads rescaled pixels: of all files, or of all frames in stored order.

    Raises:
      InputError: names the file that cannot be read.
    """
    header = planes[0].header
    if header.num_frames > 1:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(header.path))
    else:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(plane.header.path) for plane in planes])
        # `dicom_geometry` checks the distances, and names the files.
        reader.SetSpacingWarningRelThreshold(1)
    reader.SetImageIO(_IMAGE_IO)
    # The default is the type of the first file, to which ITK truncates the others.
    is_double = _dtype(planes) is np.float64
    reader.SetOutputPixelType(sitk.sitkFloat64 if is_double else sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        if header.num_frames == 1:
            for plane in planes:
                _read_direction(plane, with_pixels=True)
        raise _unreadable(folder, error) from error
    received = (*image.GetSize()[::-1], image.GetNumberOfComponentsPerPixel())
    if received != (*shape, 1):
        raise InputError(
            folder, expected=f"pixels of shape {shape}", received=received[:-1]
        )
    return image


def _dtype(planes: list[Plane]) -> type[np.floating]:
    """Returns the type that pixels are read as."""
    slopes_differ = len({plane.rescale for plane in planes}) > 1
    # The stored integers are recovered from frames that ITK rescaled by one slope.
    is_double = slopes_differ and planes[0].header.num_frames > 1
    return np.float64 if is_double else np.float32


def _decode(
    planes: list[Plane], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes pixels and direction of compressed files."""
    from u2net_tf.volumes import dicom_decoder

    paths = [plane.header.path for plane in planes]
    if planes[0].header.num_frames > 1:
        paths = paths[:1]
    return dicom_decoder.decode(paths, shape, _dtype(planes))


def _sort_frames(planes: list[Plane], frames: np.ndarray) -> np.ndarray:
    """Sorts frames into the order of the planes, each with its own rescale values.

    ITK rescales all frames by the values of the first.
    """
    data = np.empty(frames.shape, np.float32)
    (applied,) = (plane.rescale for plane in planes if plane.frame == 0)
    for target, plane in zip(data, planes, strict=True):
        frame = frames[plane.frame]
        if plane.rescale != applied and plane.rescale and applied:
            stored = np.rint((frame - applied[1]) / applied[0])
            frame = stored * plane.rescale[0] + plane.rescale[1]
        target[...] = frame
    return data


def _read_direction(plane: Plane, *, with_pixels: bool = False) -> np.ndarray:
    """Reads ITK's (3, 3) orthogonal unit vectors along row, column and normal.

    Raises:
      InputError: if ITK cannot read the file.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_IMAGE_IO)
    reader.SetFileName(str(plane.header.path))
    try:
        reader.ReadImageInformation()
        if with_pixels:
            reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise _unreadable(plane.header.path, error) from error
    cosines = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)
    return cosines[:3, :3]


def _check_direction(plane: Plane, direction: np.ndarray) -> None:
    """Checks that the direction from ITK is that of the header."""
    received = direction[:, :2].T.ravel()
    if not np.allclose(received, plane.orientation, atol=_COSINE_TOLERANCE):
        raise plane.header.error(
            "ImageOrientationPatient",
            f"{plane.orientation.tolist()}, as pydicom reads it",
            f"{received.tolist()} from ITK",
        )


def _unreadable(path: str | os.PathLike, error: Exception) -> InputError:
    return InputError(
        path, expected="pixels that can be read", received=last_line(error)
    )
