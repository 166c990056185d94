"""What SimpleITK reads, as a volume with the grid that NIfTI would give it."""

from __future__ import annotations

import dataclasses
import os

import nibabel as nib
import numpy as np

from u2net_tf.volumes import nifti
from u2net_tf.volumes.grid import Grid, Volume

# ITK's world is LPS (x to the left, y to the back); NIfTI's is RAS.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_volume(
    values: np.ndarray, affine: np.ndarray, source: str | os.PathLike
) -> Volume:
    """Makes a volume of an array; it copies.

    Args:
      values: (z, y, x), in the order of the file.
      affine: (4, 4) indices (x, y, z) -> mm, RAS.
      source: names it in errors.

    Returns:
      (1, z, y, x) float32. Its grid is that of a NIfTI file of the same geometry.
    """
    image = nib.Nifti1Image(values.T, affine)
    image.header.set_xyzt_units("mm")
    return nifti.image_from_nibabel(image, source)


def to_grid(
    shape: tuple[int, ...], affine: np.ndarray, source: str | os.PathLike
) -> Grid:
    """The grid of `to_volume`, of an array (z, y, x) of which only the shape is known.

    Args:
      shape: (z, y, x).
      affine: as of `to_volume`.
      source: as of `to_volume`.
    """
    values = np.broadcast_to(np.float32(0), (1, 1, 1))
    grid = to_volume(values, affine, source).grid
    x, y, z = shape[::-1]
    grid.header.set_data_shape((x, y, z))
    return dataclasses.replace(grid, shape=(x, y, z))
