"""The values of a label map, which are whole numbers."""

from __future__ import annotations

import collections
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
    if (slope, intercept) == (1, 0) and np.issubdtype(values.dtype, np.integer):
        return _exact(values, path)
    whole = np.empty(values.shape, np.int64)
    fractions: collections.Counter[float] = collections.Counter()
    for target, plane in zip(whole, values, strict=True):
        # NaN, signalling ones too, is no whole number and refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = plane.astype(np.float64)
            if (slope, intercept) != (1, 0):
                scaled = scaled * slope + intercept
        rounded = np.rint(scaled)
        near = np.abs(rounded) < _MAX_IN_FLOAT64
        tolerance = _ROUNDING_TOLERANCE if round_labels else 0
        near[near] = np.abs(scaled[near] - rounded[near]) <= tolerance
        if near.all():
            target[...] = rounded
        else:
            found, counts = np.unique(scaled[~near], return_counts=True)
            fractions.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    if fractions:
        raise _no_integers(fractions, slope, intercept, path, round_labels)
    return _exact(whole, path)


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
    fractions: collections.Counter[float],
    slope: float,
    intercept: float,
    path: str | os.PathLike,
    round_labels: bool,
) -> InputError:
    values = sorted(fractions)
    listed = [f"{v:.9g} in {quantity(fractions[v], 'voxel')}" for v in values]
    received = first_few(listed)
    if (slope, intercept) != (1, 0):
        received += f", stored with slope {slope:.9g} and intercept {intercept:.9g}"
    nearly = all(
        abs(value) < _MAX_IN_FLOAT64
        and abs(value - round(value)) <= _ROUNDING_TOLERANCE
        for value in values
    )
    within = f" to within {_ROUNDING_TOLERANCE}" if round_labels else ""
    return InputError(
        path,
        expected=f"whole numbers{within} as labels",
        received=received,
        hint="Use `round_labels` to round them" if nearly else "",
    )
