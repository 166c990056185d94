"""Cubic B-spline interpolation of a whole volume as one matrix per axis.

A voxel of the result is a weighted sum of voxels along each axis in turn. The weights
fall off so fast that a few dozen neighbours are all there is to a sum in float64, so
each axis is a product with a narrow band of a matrix, and the volume goes through all
three axes a few planes at a time: that takes little memory and mostly BLAS.

SimpleITK's `sitkBSpline` gives the same: both compute in float64 and extend the volume
by mirroring it at its outermost voxels. What is left are roundings of the last bit of
float32 in less than 0.1 % of the voxels. It takes four to six times as long.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from u2net_tf.interpolation.matrices import bspline_matrix

# Planes of the result that are made together, and rows of a band.
_BLOCK = 32
# OpenBLAS, which comes with NumPy, uses one thread up to so many multiplications.
_SMALL_PRODUCT = 2**18
# Weights below this share of the largest are left out: float32 ends at 6e-8.
_NEGLIGIBLE = 1e-12


class _Band(NamedTuple):
    """Rows of a matrix and the only columns in which they are not 0."""

    rows: slice
    columns: slice
    weights: np.ndarray


def resample_bspline(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Resamples to another shape over the same extent; the outer faces stay in place.

    Args:
      array: (z, y, x) floats, at least 2 voxels along each axis.
      shape: the new shape.

    Returns:
      An array of `shape` and the dtype of `array`.
    """
    along_z, along_y, along_x = (
        _bands(new, old) for new, old in zip(shape, array.shape, strict=True)
    )
    result = np.empty(shape, array.dtype)
    for rows, columns, weights in along_z:
        planes = array[columns].astype(np.float64)
        made = _product(weights, planes.reshape(len(planes), -1))
        planes = made.reshape(-1, *array.shape[1:])
        turned = np.empty((len(planes), shape[1], array.shape[2]))
        for band in along_y:
            turned[:, band.rows] = _product(band.weights, planes[:, band.columns])
        # The last axis as rows of voxels, from the right.
        lines = turned.reshape(-1, array.shape[2]).T
        made = np.empty((len(lines.T), shape[2]))
        for band in along_x:
            made[:, band.rows] = _product(band.weights, lines[band.columns]).T
        result[rows] = made.reshape(-1, *shape[1:])
    return result


def _product(weights: np.ndarray, array: np.ndarray) -> np.ndarray:
    """(new, old) @ (..., old, N), in products too small for several threads.

    Threads that wait for each other where others are at work as well cost many times
    what they save.
    """
    *lead, old, size = array.shape
    width = min(size, max(1, _SMALL_PRODUCT // weights.size))
    whole = size - size % width
    result = np.empty((*lead, len(weights), size))
    np.matmul(
        weights,
        array[..., :whole].reshape(*lead, old, -1, width).swapaxes(-3, -2),
        out=result[..., :whole]
        .reshape(*lead, len(weights), -1, width)
        .swapaxes(-3, -2),
    )
    np.matmul(weights, array[..., whole:], out=result[..., whole:])
    return result


@functools.lru_cache(maxsize=6)
def _bands(new: int, old: int) -> tuple[_Band, ...]:
    """The matrix of one axis, in blocks of rows."""
    matrix = bspline_matrix(new, old)
    bands = []
    for start in range(0, new, _BLOCK):
        rows = matrix[start : start + _BLOCK]
        used = np.flatnonzero((np.abs(rows) > _NEGLIGIBLE).any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        weights = np.ascontiguousarray(rows[:, columns])
        bands.append(_Band(slice(start, start + len(rows)), columns, weights))
    return tuple(bands)
