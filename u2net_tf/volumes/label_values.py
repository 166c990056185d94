"""Conversion of label map values to integers."""

from __future__ import annotations

import collections
import os

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.wording import first_few, quantity

# Largest distance from an integer for a value to be rounded, if rounding is requested.
_ROUNDING_TOLERANCE = 0.1
# All integers up to this one are exact in float64.
_MAX_IN_FLOAT64 = 2**53


def to_integers(
    values: np.ndarray,
    slope: float,
    intercept: float,
    *,
    path: str | os.PathLike,
    round_labels: bool,
) -> np.ndarray:
    """Converts the values of a label map to integers.

    Args:
      values: (z, y, x) as stored.
      slope: scale factor of the values, 1 for none.
      intercept: offset added after scaling.
      path: the file, for errors.
      round_labels: whether to round values that are close to integers.

    Returns:
      (z, y, x) int32, or int64 where necessary.

    Raises:
      InputError: if values are not integers; lists them and their scaling.
    """
    if (slope, intercept) == (1, 0) and np.issubdtype(values.dtype, np.integer):
        return _to_int32_or_int64(values, path)
    integers = np.empty(values.shape, np.int32)
    fractions: collections.Counter[float] = collections.Counter()
    for index, plane in enumerate(values):
        # NaN, signalling or not, is not an integer and is rejected below.
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = plane.astype(np.float64)
            if (slope, intercept) != (1, 0):
                scaled = scaled * slope + intercept
        rounded = np.rint(scaled)
        valid = np.abs(rounded) < _MAX_IN_FLOAT64
        tolerance = _ROUNDING_TOLERANCE if round_labels else 0
        valid[valid] = np.abs(scaled[valid] - rounded[valid]) <= tolerance
        if valid.all():
            if not _fits(rounded, np.int32):
                integers = integers.astype(np.int64, copy=False)
            integers[index] = rounded
        else:
            found, counts = np.unique(scaled[~valid], return_counts=True)
            fractions.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    if fractions:
        raise _not_integers(fractions, slope, intercept, path, round_labels)
    return _to_int32_or_int64(integers, path)


def _to_int32_or_int64(values: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    for dtype in (np.int32, np.int64):
        if _fits(values, dtype):
            return np.ascontiguousarray(values, dtype)
    raise InputError(
        path,
        expected=f"labels up to {np.iinfo(np.int64).max}",
        received=f"{int(values.max())}",
    )


def _fits(values: np.ndarray, dtype: type[np.integer]) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= int(values.min()) and int(values.max()) <= limits.max


def _not_integers(
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
    can_be_rounded = all(
        abs(value) < _MAX_IN_FLOAT64
        and abs(value - round(value)) <= _ROUNDING_TOLERANCE
        for value in values
    )
    within = f" to within {_ROUNDING_TOLERANCE}" if round_labels else ""
    return InputError(
        path,
        expected=f"integers{within} as labels",
        received=received,
        hint="Use `round_labels` to round them" if can_be_rounded else "",
    )
