"""Conversion of arrays from SimpleITK to volumes with NIfTI grids."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.volumes import nifti_header
from u2net_tf.volumes.grid import Grid, Volume

# ITK's coordinates are LPS (x to the left, y to the back); those of NIfTI are RAS.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Largest size of an axis, which NIfTI-1 stores in 16 bits.
_MAX_NIFTI1_SIZE = 2**15 - 1


def to_volume(
    values: np.ndarray, affine: np.ndarray, source: str | os.PathLike
) -> Volume:
    """Copies an array into a volume.

    Args:
      values: (z, y, x), in the order of the file.
      affine: (4, 4) indices (x, y, z) -> mm, RAS.
      source: the file or folder, for errors.

    Returns:
      (1, z, y, x) float32. Its grid is that of a NIfTI file of the same geometry.
    """
    grid = to_grid(values.shape, affine, source)
    view = grid.canonical_view(values.T)
    data = np.empty((1, *view.shape), np.float32)
    data[0] = view
    return Volume(data, grid.spacing_mm(), grid)


def to_grid(
    shape: tuple[int, ...], affine: np.ndarray, source: str | os.PathLike
) -> Grid:
    """Returns the grid of `to_volume` from the shape alone.

    Args:
      shape: (z, y, x).
      affine: see `to_volume`.
      source: see `to_volume`.

    Raises:
      InputError: if the affine is singular.
    """
    if not nifti_header.is_invertible(affine):
        raise InputError(
            source, expected="an invertible affine", received=affine.tolist()
        )
    x, y, z = shape[::-1]
    image_class = nib.Nifti1Image
    if max(shape) > _MAX_NIFTI1_SIZE:
        image_class = nib.Nifti2Image
    header = image_class(np.broadcast_to(np.float32(0), (1, 1, 1)), affine).header
    header.set_xyzt_units("mm")
    header.set_data_shape((x, y, z))
    # Not the header's affine, which is float32: ITK compares positions to 1e-6 voxels.
    return Grid(str(source), (x, y, z), affine, header, image_class)
