"""NIfTI in and out."""

from __future__ import annotations

import dataclasses
import gzip
import os
import pathlib
import zlib
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from absl import logging
from nibabel import filebasedimages, spatialimages

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.volumes.grid import Grid, Volume, check_same_grid, header_problem

_READ_ERRORS = (
    filebasedimages.ImageFileError,
    spatialimages.HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
)


def load_image(
    paths: Sequence[str | os.PathLike], *, spacing_source: str = "pixdim"
) -> Volume:
    """Reads an image from one 3-D or 4-D file, or from one 3-D file per modality.

    Args:
      paths: one file, or one per modality in the order of the modalities.
      spacing_source: where the voxel size is read from when the header contradicts
        itself: "pixdim" or "affine". Such a file is named in a warning.

    Returns:
      (C, z, y, x) float32.

    Raises:
      InputError: if a file cannot be read, is not 3-D or 4-D, or the files lie on
        different grids.
    """
    volumes = [_unpack(_read_nifti(path), path) for path in paths]
    return _stack(volumes, spacing_source)


def image_from_nibabel(
    image: nib.nifti1.Nifti1Image, source: str | os.PathLike
) -> Volume:
    """The same for an image in memory; `source` names it in errors.

    Returns:
      (C, z, y, x) float32.

    Raises:
      InputError: if the image is not 3-D or 4-D.
    """
    return _stack([_unpack(image, source)], "pixdim")


def _stack(volumes: list[tuple[np.ndarray, Grid]], spacing_source: str) -> Volume:
    first_array, grid = volumes[0]
    for array, other in volumes if len(volumes) > 1 else []:
        check_same_grid(grid, other)
        if array.ndim != 3:
            raise InputError(
                other.path,
                expected="a 3-D file, one per modality",
                received=f"shape {array.shape}",
            )
    if len(volumes) == 1 and first_array.ndim == 4:
        channels = [first_array[..., c] for c in range(first_array.shape[-1])]
    else:
        channels = [array for array, _ in volumes]
    views = [grid.canonical_view(channel) for channel in channels]
    # One copy, and no other beside it: a volume may be a good part of the memory.
    data = np.empty((len(views), *views[0].shape), np.float32)
    for channel, view in zip(data, views, strict=True):
        channel[...] = view
    if problem := header_problem(grid):
        logging.warning("%s: %s; taking %s", grid.path, problem, spacing_source)
    return Volume(data, grid.spacing_mm(spacing_source), grid)


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself before its voxels.

    Attributes:
      shape: on disk (x, y, z), or (x, y, z, modality); singleton axes after the third
        are removed.
      grid: the grid.
    """

    shape: tuple[int, ...]
    grid: Grid


def load_header(path: str | os.PathLike) -> Header:
    """Reads the header of an image or a label map, and none of its voxels.

    Raises:
      InputError: if the file cannot be read or is not 3-D or 4-D.
    """
    return _check_header(_read_nifti(path), path)


def load_labels(path: str | os.PathLike) -> Volume:
    """Reads a label map.

    Returns:
      (z, y, x) int32. Its spacing is from pixdim.

    Raises:
      InputError: if the file cannot be read, is not 3-D, or holds values that are no
        whole numbers.
    """
    array, grid = _unpack(_read_nifti(path), path)
    if array.ndim == 4:
        raise InputError(
            path, expected="a 3-D label map", received=f"shape {array.shape}"
        )
    view = grid.canonical_view(array)
    data = np.empty(view.shape, np.int32)
    for target, plane in zip(data, view, strict=True):
        whole = np.rint(plane)
        if not np.array_equal(plane, whole):
            raise InputError(
                path, expected="whole numbers as labels", received="fractions"
            )
        target[...] = whole
    return Volume(data, grid.spacing_mm(), grid)


def save_labels(path: str | os.PathLike, labels: np.ndarray, grid: Grid) -> None:
    """Writes a label map on a grid: whole or not at all.

    Args:
      path: file to write, `.nii.gz` or `.nii`.
      labels: (z, y, x) integers, canonical orientation.
      grid: the grid of the image that the labels belong to.
    """
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            break
    _save(path, grid.from_canonical(labels.astype(dtype)), grid)


def save_probabilities(
    path: str | os.PathLike, probabilities: np.ndarray, grid: Grid
) -> None:
    """Writes class probabilities as one 4-D file: whole or not at all.

    Args:
      path: file to write.
      probabilities: (z, y, x, K) floats, canonical orientation.
      grid: the grid of the image that they belong to.
    """
    channels = [
        grid.from_canonical(probabilities[..., k].astype(np.float32))
        for k in range(probabilities.shape[-1])
    ]
    _save(path, np.stack(channels, axis=-1), grid)


def _read_nifti(path: str | os.PathLike) -> nib.nifti1.Nifti1Image:
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(path, expected="a file", received="no such file")
    try:
        image = nib.load(path)
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error
    if not isinstance(image, nib.nifti1.Nifti1Image):
        raise InputError(path, expected="a NIfTI file", received=type(image).__name__)
    return image


def _unreadable(path: str | os.PathLike, error: Exception) -> InputError:
    return InputError(
        path,
        expected="a readable NIfTI file",
        received=f"{type(error).__name__}: {error}",
    )


def _unpack(
    image: nib.nifti1.Nifti1Image, path: str | os.PathLike
) -> tuple[np.ndarray, Grid]:
    """Array in disk order, singleton axes after the third removed, and its grid."""
    header = _check_header(image, path)
    try:
        array = np.asarray(image.dataobj, dtype=np.float32)
    except _READ_ERRORS as error:
        raise _unreadable(path, error) from error
    return array.reshape(header.shape), header.grid


def _check_header(image: nib.nifti1.Nifti1Image, path: str | os.PathLike) -> Header:
    dtype = image.get_data_dtype()
    if dtype.fields is not None or np.issubdtype(dtype, np.complexfloating):
        raise InputError(
            path, expected="one number per voxel", received=f"data type {dtype}"
        )
    shape: tuple[int, ...] = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or 0 in shape:
        raise InputError(
            path,
            expected="a 3-D volume, or a 4-D volume of several modalities",
            received=f"shape {tuple(image.shape)}",
        )
    if not np.isfinite(image.affine).all() or np.linalg.det(image.affine[:3, :3]) == 0:
        raise InputError(
            path, expected="an invertible affine", received=image.affine.tolist()
        )
    grid = Grid(
        path=str(path),
        shape=(shape[0], shape[1], shape[2]),
        affine=np.array(image.affine, dtype=float),
        header=image.header.copy(),
        image_class=type(image),
    )
    if not (np.isfinite(grid.pixdim_mm).all() and (grid.pixdim_mm > 0).all()):
        raise InputError(
            path,
            expected="voxel sizes above 0 mm in pixdim",
            received=grid.pixdim_mm.tolist(),
        )
    return Header(shape, grid)


def _save(path: str | os.PathLike, array: np.ndarray, grid: Grid) -> None:
    path = pathlib.Path(path)
    header = grid.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    image = grid.image_class(array, None, header)
    data = image.to_bytes()
    if path.name.endswith(".gz"):
        data = gzip.compress(data, compresslevel=4, mtime=0)
    with files.written_whole(path) as partial:
        partial.write_bytes(data)
