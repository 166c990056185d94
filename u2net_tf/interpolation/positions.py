"""Positions of voxels when a grid is resized: the one formula of the project.

The outer faces of the outermost voxels stay where they are, so that resizing there and
back shifts nothing. Both functions are plain arithmetic and take NumPy arrays and
TensorFlow tensors alike, so preprocessing, input and inference share them.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def resized_positions(index: Any, *, new: Any, old: Any) -> Any:
    """Where the centres of resized voxels lie, in voxels of the original grid.

    Args:
      index: indices of voxels of the resized grid, floats or integers.
      new: number of voxels along the axis after resizing.
      old: number of voxels before.

    Returns:
      Positions of the shape of `index`; 0 is the centre of the first voxel. They lie
      beyond the outermost centres, by less than half a voxel, where the grid is made
      finer.
    """
    return (index + 0.5) * old / new - 0.5


def axis_positions(new: int, old: int) -> np.ndarray:
    """`resized_positions` of a whole axis. (new,) float64."""
    return resized_positions(np.arange(new), new=new, old=old)


def nearest_voxels(new: int, old: int) -> np.ndarray:
    """Indices of the original voxels nearest to those of a resized axis.

    Halfway between two voxels it is the higher one.

    Args:
      new: number of voxels along the axis after resizing.
      old: number of voxels before.

    Returns:
      (new,) integers from 0 to old - 1.
    """
    nearest = np.floor(axis_positions(new, old) + 0.5).astype(int)
    return np.minimum(nearest, old - 1)
