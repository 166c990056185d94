"""Voxel positions of a resized grid: the only formula for them in the project.

The outer faces of the outermost voxels stay in place, so that resizing there and back
shifts nothing. `resized_positions` is plain arithmetic and takes NumPy arrays and
TensorFlow tensors alike, so preprocessing, input and inference share it.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def resized_positions(index: Any, *, new: Any, old: Any) -> Any:
    """Returns the centres of resized voxels, in voxels of the original grid.

    Args:
      index: voxel indices in the resized grid, floats or integers.
      new: number of voxels along the axis after resizing.
      old: number of voxels before resizing.

    Returns:
      Positions in the shape of `index`; 0 is the centre of the first voxel. In a finer
      grid, positions extend beyond the outermost centres by less than half a voxel.
    """
    return (index + 0.5) * old / new - 0.5


def axis_positions(new: int, old: int) -> np.ndarray:
    """Returns `resized_positions` of an entire axis, (new,) float64."""
    return resized_positions(np.arange(new), new=new, old=old)


def nearest_voxels(new: int, old: int) -> np.ndarray:
    """Returns the indices of the original voxels nearest to those of a resized axis.

    Halfway between two voxels, the higher index is used.

    Args:
      new: number of voxels along the axis after resizing.
      old: number of voxels before resizing.

    Returns:
      (new,) integers from 0 to old - 1.
    """
    nearest = np.floor(axis_positions(new, old) + 0.5).astype(int)
    return np.minimum(nearest, old - 1)
