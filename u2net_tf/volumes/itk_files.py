"""Reading and writing of NRRD and MetaImage files with SimpleITK."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import types
from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.volumes import itk_header, label_values, nifti, nifti_header
from u2net_tf.volumes.float32 import to_float32
from u2net_tf.volumes.grid import Grid, Volume, log_notes
from u2net_tf.volumes.itk_errors import last_line
from u2net_tf.volumes.itk_fields import Scaling
from u2net_tf.volumes.itk_geometry import LPS_TO_RAS, to_grid, to_volume

SUFFIXES = (".nrrd", ".mha")
# Tolerance of `itk_header` for perpendicular axes in MetaImage files.
_MAX_SHEAR = 1e-3
_IMAGE_IO = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}


def is_itk_file(path: str | os.PathLike) -> bool:
    """Returns whether a file name has the suffix of NRRD or MetaImage."""
    return pathlib.PurePath(path).suffix.lower() in SUFFIXES


def load_header(
    path: str | os.PathLike, *, max_memory_gb: float | None = None
) -> nifti.Header:
    """Reads the header of an image or a label map, without voxels.

    Raises:
      InputError: if it lacks the geometry, is not 3-D, or claims more voxels than fit
        into memory.
    """
    reader, scaling = _open(path, max_memory_gb, with_voxels=False)
    shape = tuple(reader.GetSize())
    grid = to_grid(shape[::-1], _affine(reader, scaling), path)
    components = reader.GetNumberOfComponents()
    return nifti.Header(shape if components == 1 else (*shape, components), grid)


def load_image(
    path: str | os.PathLike, *, max_memory_gb: float | None = None
) -> Volume:
    """Reads an image; components of its voxels are modalities.

    Args:
      path: `.nrrd` or `.mha`.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (C, z, y, x) float32.

    Raises:
      InputError: if the file is damaged, lacks its geometry, or is not 3-D.
    """
    image, scaling = _read(path, max_memory_gb)
    array = sitk.GetArrayViewFromImage(image)
    channels = [array] if array.ndim == 3 else list(np.moveaxis(array, -1, 0))
    affine = _affine(image, scaling)
    volumes, notes = [], []
    for channel in channels:
        values, new = to_float32(channel, scaling.slope, scaling.intercept, path=path)
        notes += [note for note in new if note not in notes]
        volumes.append(to_volume(values, affine, path))
    data = volumes[0].data
    if len(volumes) > 1:
        data = np.concatenate([volume.data for volume in volumes])
    logged = log_notes(path, [*notes, *nifti_header.shear_notes(affine)])
    return dataclasses.replace(volumes[0], data=data, notes=logged)


def load_labels(
    path: str | os.PathLike,
    *,
    round_labels: bool = False,
    max_memory_gb: float | None = None,
) -> Volume:
    """Reads a label map.

    Args:
      path: `.nrrd` or `.mha`.
      round_labels: see `nifti.load_labels`.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (z, y, x) int32, or int64 if its values require it.

    Raises:
      InputError: see `load_image`; also if values are not integers.
    """
    image, scaling = _read(path, max_memory_gb)
    array = sitk.GetArrayViewFromImage(image)
    if array.ndim != 3:
        raise InputError(
            path, expected="a 3-D label map", received=f"shape {array.shape}"
        )
    grid = to_grid(array.shape, _affine(image, scaling), path)
    data = label_values.to_integers(
        grid.canonical_view(array.T),
        scaling.slope,
        scaling.intercept,
        path=path,
        round_labels=round_labels,
    )
    notes = log_notes(path, nifti_header.shear_notes(grid.affine))
    return Volume(data, grid.spacing_mm(), grid, notes)


def require_format_for(grid: Grid, path: str | os.PathLike) -> None:
    """Checks that the format of a file can store a grid.

    Args:
      grid: grid to store: axes, spacing and origin.
      path: the file, in any format.

    Raises:
      InputError: if it is MetaImage, and the axes of the grid are not perpendicular.
    """
    if pathlib.PurePath(path).suffix.lower() != ".mha":
        return
    _, direction = _spacing_and_direction(grid)
    if not np.allclose(direction.T @ direction, np.eye(3), atol=_MAX_SHEAR):
        raise InputError(
            path,
            expected="perpendicular axes",
            received=f"the affine of {grid.path}, which is sheared",
            hint="Write NIfTI or NRRD instead",
        )


def _spacing_and_direction(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Returns voxel sizes (x, y, z) and, as columns, the axes in ITK's coordinates."""
    axes = (LPS_TO_RAS @ grid.affine)[:3, :3]
    spacing = np.sqrt((axes**2).sum(axis=0))
    return spacing, axes / spacing


def save(
    path: str | os.PathLike,
    array: np.ndarray,
    grid: Grid,
    *,
    fields: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Writes an array on a grid atomically.

    Args:
      path: `.nrrd` or `.mha`.
      array: (x, y, z), or (x, y, z, K), in the order of the grid's file.
      grid: position of the array's voxels.
      fields: additional header fields, name -> text.

    Raises:
      InputError: see `require_format_for`.
    """
    path = pathlib.Path(path)
    require_format_for(grid, path)
    spacing, direction = _spacing_and_direction(grid)
    image = sitk.GetImageFromArray(
        np.ascontiguousarray(np.moveaxis(array, (0, 1, 2), (2, 1, 0))),
        isVector=array.ndim == 4,
    )
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((LPS_TO_RAS @ grid.affine)[:3, 3].tolist())
    image.SetDirection(direction.ravel().tolist())
    for name, text in fields.items():
        image.SetMetaData(name, text)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO(_IMAGE_IO[path.suffix.lower()])
    writer.UseCompressionOn()
    with files.atomic_write(path) as partial:
        writer.SetFileName(str(partial))
        try:
            writer.Execute(image)
        except RuntimeError as error:
            raise OSError(f"{path}: {last_line(error)}") from error


def _open(
    path: str | os.PathLike, max_memory_gb: float | None, *, with_voxels: bool
) -> tuple[sitk.ImageFileReader, Scaling]:
    """Checks a file; returns a reader that has read the header, and the scaling."""
    path = pathlib.Path(path)
    try:
        scaling = itk_header.check_file(path, max_memory_gb, with_voxels=with_voxels)
    except OSError as error:
        raise _unreadable(path, error) from error
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_IMAGE_IO[path.suffix.lower()])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except (RuntimeError, MemoryError) as error:
        raise _unreadable(path, error) from error
    if reader.GetDimension() != 3:
        raise InputError(
            path,
            expected="three axes, and modalities as components of voxels",
            received=f"{reader.GetDimension()} axes",
        )
    return reader, scaling


def _read(
    path: str | os.PathLike, max_memory_gb: float | None
) -> tuple[sitk.Image, Scaling]:
    reader, scaling = _open(path, max_memory_gb, with_voxels=True)
    try:
        return reader.Execute(), scaling
    except (RuntimeError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike, error: Exception) -> InputError:
    return InputError(
        path, expected="a file that ITK can read", received=last_line(error)
    )


def _affine(image: sitk.Image | sitk.ImageFileReader, scaling: Scaling) -> np.ndarray:
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:3] *= scaling.mm_per_unit
    return LPS_TO_RAS @ affine
