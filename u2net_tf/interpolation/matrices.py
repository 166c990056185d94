"""Interpolation along one axis as a matrix from old to new voxels."""

from __future__ import annotations

import numpy as np

from u2net_tf.interpolation import kernels
from u2net_tf.interpolation.positions import axis_positions


def interpolation_matrix(new: int, old: int, method: str) -> np.ndarray:
    """Returns the (new, old) matrix that resizes one axis over the same extent.

    Positions beyond the outermost voxel centres take the value of the outermost voxel.

    Args:
      new: number of voxels after resizing.
      old: number of voxels before resizing.
      method: "linear" or "cubic" (Keys 1981, a = -0.5).

    Returns:
      float64; each row sums to 1.

    Raises:
      ValueError: if the method is unknown.
    """
    kernels.check_method(method)
    kernel = kernels.KERNELS[method]
    positions = axis_positions(new, old)
    first = np.floor(positions).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.clip(first + tap, 0, old - 1)
        weight = kernel(np.abs(positions - (first + tap)))
        np.add.at(matrix, (np.arange(new), index), weight)
    return matrix


def bspline_matrix(new: int, old: int) -> np.ndarray:
    """Returns the same matrix for cubic B-splines, mirrored at the outer voxels.

    Args:
      new: number of voxels after resizing.
      old: number of voxels before resizing, at least 2.

    Returns:
      float64; each row sums to 1.
    """
    if new == old:
        return np.eye(old)
    # Solves for the coefficients that reproduce the voxels, then evaluates the spline.
    at_voxels = _bspline_basis(np.arange(old, dtype=float), old)
    at_positions = _bspline_basis(axis_positions(new, old), old)
    return np.linalg.solve(at_voxels.T, at_positions.T).T


def _bspline_basis(positions: np.ndarray, size: int) -> np.ndarray:
    """Returns (P, size) weights of coefficients at P positions, mirrored outside."""
    weights = np.zeros((len(positions), size))
    first = np.floor(positions).astype(int) - 1
    for tap in range(4):
        index = first + tap
        period = 2 * (size - 1)
        folded = np.abs((index + size - 1) % period - (size - 1))
        weight = kernels.cubic_bspline(np.abs(positions - index))
        np.add.at(weights, (np.arange(len(positions)), folded), weight)
    return weights
