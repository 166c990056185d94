"""The values of a label map, which are whole numbers."""

from __future__ import annotations

import os

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.wording import first_few, quantity

# How far from a whole number a value may be to be rounded, where that is asked for.
_ROUNDING_TOLERANCE = 0.1
# Whole numbers that float64 still tells from their neighbours.
_MAX_IN_FLOAT64 = 2**53


def to_integers(
    values: np.ndarray,
    slope: float,
    intercept: float,
    *,
    path: str | os.PathLike,
    round_labels: bool,
) -> np.ndarray:
    """The values of a label map as integers.

    Args:
      values: (z, y, x) as stored.
      slope: factor of the values, 1 for none.
      intercept: added after that.
      path: the file, for errors.
      round_labels: round values that are nearly whole.

    Returns:
      (z, y, x) int32, or int64 where that is needed.

    Raises:
      InputError: says which values are no whole numbers, and how they are scaled.
    """
    is_scaled = (slope, intercept) != (1, 0)
    if not is_scaled and np.issubdtype(values.dtype, np.integer):
        return _exact(values, path)
    planes = np.empty(values.shape, np.int64)
    for target, plane in zip(planes, values, strict=True):
        scaled = plane.astype(np.float64)
        if is_scaled:
            scaled = scaled * slope + intercept
        whole = np.rint(scaled)
        near = np.abs(whole) < _MAX_IN_FLOAT64
        if round_labels:
            near &= np.abs(scaled - whole) <= _ROUNDING_TOLERANCE
        else:
            near &= scaled == whole
        if not near.all():
            raise _no_integers(scaled[~near], slope, intercept, path, round_labels)
        target[...] = whole
    return _exact(planes, path)


def _exact(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    for dtype in (np.int32, np.int64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.ascontiguousarray(values, dtype)
    raise InputError(
        path,
        expected=f"labels up to {np.iinfo(np.int64).max}",
        received=f"{high}",
    )


def _no_integers(
    values: np.ndarray,
    slope: float,
    intercept: float,
    path: str | os.PathLike,
    round_labels: bool,
) -> InputError:
    found, counts = np.unique(values, return_counts=True)
    listed = [
        f"{value:.9g} in {quantity(int(count), 'voxel')}"
        for value, count in zip(found, counts, strict=True)
    ]
    received = f"fractions: {first_few(listed)} of a slice"
    if (slope, intercept) != (1, 0):
        received += f", stored with scl_slope {slope:.9g} and scl_inter {intercept:.9g}"
    nearly = np.abs(values - np.rint(values)).max() <= _ROUNDING_TOLERANCE
    return InputError(
        path,
        expected="whole numbers as labels"
        + (f", up to {_ROUNDING_TOLERANCE}" if round_labels else ""),
        received=received,
        hint="Use `round_labels` to round them" if nearly and not round_labels else "",
    )
