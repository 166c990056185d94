"""Modalities in separate files: on one grid, or resampled to that of the first."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from absl import logging
from nibabel import affines

from u2net_tf.errors import InputError
from u2net_tf.volumes.grid import Grid, Volume, check_same_grid, reorient_to
from u2net_tf.volumes.memory import require_memory


def check_grids(grids: Sequence[Grid]) -> None:
    """Checks that the modalities of a case are on the same grid.

    Raises:
      InputError: names the first file that is not, and both grids.
    """
    first, *others = grids
    for other in others:
        try:
            check_same_grid(first, other)
        except InputError as error:
            raise InputError(
                other.path,
                expected=f"the grid of {first.path}, {describe(first)}",
                received=f"{describe(other)} ({error.received})",
                hint="With `resample_modalities` it is resampled to that grid",
            ) from None


def require_3d(path: str, num_modalities: Sequence[int]) -> None:
    """Checks that a file contains a single modality, if there is a file for each.

    Args:
      path: the file.
      num_modalities: the sizes in its header after the spatial shape.

    Raises:
      InputError: if it contains several.
    """
    if num_modalities and num_modalities[0] != 1:
        raise InputError(
            path,
            expected="a 3-D file, one per modality",
            received=f"{num_modalities[0]} modalities",
        )


def require_memory_for_all(
    paths: Sequence[str | os.PathLike],
    shape: Sequence[int],
    *,
    max_memory_gb: float | None,
) -> None:
    """Checks that modalities in separate files fit into memory together.

    Args:
      paths: a file, or a DICOM folder, per modality.
      shape: shape of the first, in voxels, which becomes that of all.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: names the first file.
    """
    require_memory(
        paths[0],
        # As separate arrays, and in one array.
        2 * 4 * len(paths) * math.prod(shape),
        content=f"{len(paths)} modalities of shape {tuple(shape)} in float32",
        max_memory_gb=max_memory_gb,
    )


def describe(grid: Grid) -> str:
    """Describes shape on disk, voxel size and orientation of a grid."""
    shape = " × ".join(map(str, grid.shape))
    sizes = " × ".join(f"{size:.4g}" for size in affines.voxel_sizes(grid.affine))
    return f"{shape} voxels of {sizes} mm, {grid.axis_codes}"


def stack(volumes: Sequence[Volume], *, resample: bool = False) -> Volume:
    """Stacks the modalities of a case into one volume.

    Args:
      volumes: (1, z, y, x) each, in the order of the modalities.
      resample: whether to resample modalities to the grid of the first, with a warning
        and a note for each that is on a different grid.

    Returns:
      (C, z, y, x) float32, on the grid of the first.

    Raises:
      InputError: if a file contains several modalities, is on a different grid and not
        to be resampled, or does not overlap the first.
    """
    for volume in volumes:
        require_3d(volume.grid.path, volume.data.shape[:1])
    first = volumes[0]
    if not resample:
        check_grids([volume.grid for volume in volumes])
    data = np.empty((len(volumes), *first.data.shape[1:]), np.float32)
    notes = [note for volume in volumes for note in volume.notes]
    for channel, volume in zip(data, volumes, strict=True):
        modality = Volume(volume.data[0], volume.spacing_mm, volume.grid)
        if resample and not _is_same_grid(first.grid, modality.grid):
            channel[...], note = _resample_to(first, modality)
            logging.warning("%s", note)
            notes.append(note)
        else:
            channel[...] = reorient_to(modality, first.grid)
    return Volume(data, first.spacing_mm, first.grid, tuple(notes))


def _is_same_grid(first: Grid, other: Grid) -> bool:
    try:
        check_same_grid(first, other)
    except InputError:
        return False
    return True


def _resample_to(first: Volume, other: Volume) -> tuple[np.ndarray, str]:
    """Returns a modality on the (z, y, x) grid of the first, and a note about it."""
    lowest = float(other.data.min())
    resampled = _resample(other.data, first, other, sitk.sitkLinear, lowest)
    inside = np.ones(other.data.shape, np.uint8)
    covered = _resample(inside, first, other, sitk.sitkNearestNeighbor, 0).mean()
    if covered == 0:
        raise InputError(
            other.grid.path,
            expected=f"a volume that overlaps that of {first.grid.path}",
            received="one without overlap",
        )
    note = (
        f"{other.grid.path}: resampled from {describe(other.grid)} to the grid of "
        f"{first.grid.path}, {describe(first.grid)}"
    )
    if covered < 1:
        note += f", of which {1 - covered:.1%} is outside and gets the lowest intensity"
    return resampled, note


def _resample(
    array: np.ndarray, first: Volume, other: Volume, interpolator: int, outside: float
) -> np.ndarray:
    # From voxels to voxels: ITK's directions cannot express a shear.
    to_other = np.linalg.solve(_affine(other.grid), _affine(first.grid))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(to_other[:3, :3].ravel().tolist())
    transform.SetTranslation(to_other[:3, 3].tolist())
    z, y, x = first.data.shape[1:]
    image = sitk.GetImageFromArray(array)
    resampled = sitk.Resample(
        image,
        [x, y, z],
        transform,
        interpolator,
        [0.0, 0.0, 0.0],
        [1.0, 1.0, 1.0],
        image.GetDirection(),
        outside,
        image.GetPixelID(),
    )
    return sitk.GetArrayFromImage(resampled)


def _affine(grid: Grid) -> np.ndarray:
    """Returns the affine from canonical voxel indices (x, y, z) to mm."""
    to_disk = nib.orientations.inv_ornt_aff(grid.orientation, grid.shape)
    return grid.affine @ to_disk
