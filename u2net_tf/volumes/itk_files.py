"""NRRD and MetaImage files in and out, through SimpleITK."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import SimpleITK as sitk

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.volumes import itk_header, label_values, nifti
from u2net_tf.volumes.grid import Grid, Volume
from u2net_tf.volumes.itk_errors import last_line
from u2net_tf.volumes.itk_geometry import LPS_TO_RAS, to_grid, to_volume

SUFFIXES = (".nrrd", ".mha")
_IMAGE_IO = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}


def is_itk_file(path: str | os.PathLike) -> bool:
    """Whether a name ends as that of an NRRD or MetaImage file."""
    return pathlib.PurePath(path).suffix.lower() in SUFFIXES


def load_header(
    path: str | os.PathLike, *, max_memory_gb: float | None = None
) -> nifti.Header:
    """Reads the header of an image or a label map, and none of its voxels.

    Raises:
      InputError: if it lacks the geometry, is not 3-D, or claims more voxels than fit
        into the memory.
    """
    reader = _open(path, max_memory_gb, with_voxels=False)
    shape = tuple(reader.GetSize())
    grid = to_grid(shape[::-1], _affine(reader), path)
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
    image = _read(path, max_memory_gb)
    array = sitk.GetArrayViewFromImage(image)
    channels = [array] if array.ndim == 3 else list(np.moveaxis(array, -1, 0))
    affine = _affine(image)
    volumes = []
    for channel in channels:
        # What is too large becomes infinite, which is a fault of the image.
        with np.errstate(over="ignore"):
            values = channel.astype(np.float32)
        volumes.append(to_volume(values, affine, path))
    if len(volumes) == 1:
        return volumes[0]
    data = np.concatenate([volume.data for volume in volumes])
    return Volume(data, volumes[0].spacing_mm, volumes[0].grid)


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
      (z, y, x) int32, or int64 if its values need that.

    Raises:
      InputError: as `load_image`, and if values are no whole numbers.
    """
    image = _read(path, max_memory_gb)
    array = sitk.GetArrayViewFromImage(image)
    if array.ndim != 3:
        raise InputError(
            path, expected="a 3-D label map", received=f"shape {array.shape}"
        )
    grid = to_grid(array.shape, _affine(image), path)
    data = label_values.to_integers(
        grid.canonical_view(array.T), 1, 0, path=path, round_labels=round_labels
    )
    return Volume(data, grid.spacing_mm(), grid)


def save(path: str | os.PathLike, array: np.ndarray, grid: Grid) -> None:
    """Writes an array on a grid: whole or not at all.

    Args:
      path: `.nrrd` or `.mha`.
      array: (x, y, z), or (x, y, z, K), in the order of the grid's file.
      grid: the grid.

    Raises:
      InputError: if the axes of the grid are not perpendicular.
    """
    path = pathlib.Path(path)
    affine = LPS_TO_RAS @ grid.affine
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    direction = affine[:3, :3] / spacing
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise InputError(
            path,
            expected="perpendicular axes",
            received=f"the affine of {grid.path}, which is sheared",
            hint="Write NIfTI instead",
        )
    image = sitk.GetImageFromArray(
        np.ascontiguousarray(np.moveaxis(array, (0, 1, 2), (2, 1, 0))),
        isVector=array.ndim == 4,
    )
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(direction.ravel().tolist())
    writer = sitk.ImageFileWriter()
    writer.SetImageIO(_IMAGE_IO[path.suffix.lower()])
    writer.UseCompressionOn()
    with files.written_whole(path) as partial:
        writer.SetFileName(str(partial))
        try:
            writer.Execute(image)
        except RuntimeError as error:
            raise OSError(f"{path}: {last_line(error)}") from error


def _open(
    path: str | os.PathLike, max_memory_gb: float | None, *, with_voxels: bool
) -> sitk.ImageFileReader:
    """A reader that has read the header of a file that was checked."""
    path = pathlib.Path(path)
    itk_header.check_file(path, max_memory_gb, with_voxels=with_voxels)
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
    return reader


def _read(path: str | os.PathLike, max_memory_gb: float | None) -> sitk.Image:
    reader = _open(path, max_memory_gb, with_voxels=True)
    try:
        return reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike, error: Exception) -> InputError:
    return InputError(
        path, expected="a file that ITK can read", received=last_line(error)
    )


def _affine(image: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine
