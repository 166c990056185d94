"""Conversion of intensities to float32, and notes on its rounding."""

from __future__ import annotations

import os

import numpy as np
from nibabel.volumeutils import apply_read_scaling

from u2net_tf.errors import InputError

# Types of up to this many bytes are exact in float32. For others, the largest rounding
# step without a note, as a fraction of the range of intensities.
_EXACT_BYTES, _MAX_STEP = 2, 1e-3
# Voxels that are scaled at a time, in float64.
_VOXELS_AT_A_TIME = 2**16


def to_float32(
    stored: np.ndarray, slope: float, intercept: float, *, path: str | os.PathLike
) -> tuple[np.ndarray, list[str]]:
    """Converts stored voxels to intensities; values that are too large become infinite.

    Args:
      stored: the voxels, of any shape.
      slope: scale factor of the voxels, 1 for none.
      intercept: offset added after scaling.
      path: the file, for errors.

    Returns:
      The intensities, in the same array if nothing changes; and a note if the rounding
      step is larger than a thousandth of their range.

    Raises:
      InputError: if rounding makes different intensities all equal.
    """
    is_scaled = (slope, intercept) != (1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        if is_scaled:
            values = np.empty_like(stored, np.float32)
            # Both in the order of the memory.
            source, target = stored.ravel("K"), values.ravel("K")
            for start in range(0, source.size, _VOXELS_AT_A_TIME):
                part = slice(start, start + _VOXELS_AT_A_TIME)
                target[part] = _scale(source[part], slope, intercept)
        else:
            values = stored.astype(np.float32, copy=False)
    dtype = stored.dtype.newbyteorder("=")
    is_exact = dtype.itemsize <= _EXACT_BYTES or dtype == np.float32
    if is_exact and not is_scaled:
        return values, []
    low, high = float(values.min()), float(values.max())
    if low != high:
        return values, rounding_notes(values)
    extremes = np.array([stored.min(), stored.max()])
    if is_scaled:
        extremes = np.sort(_scale(extremes, slope, intercept))
    if extremes[0] != extremes[1]:
        raise InputError(
            path,
            expected="intensities that differ in float32",
            received=f"{extremes[0]} to {extremes[1]}, all rounded to {low:.9g}",
        )
    return values, []


def _scale(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    return apply_read_scaling(stored, np.float64(slope), np.float64(intercept))


def rounding_notes(values: np.ndarray) -> list[str]:
    """Returns a note if float32 rounds the values coarsely relative to their range."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return []
    step = float(np.spacing(np.float32(max(abs(low), abs(high)))))
    if step <= _MAX_STEP * (high - low):
        return []
    return [
        f"intensities from {low:g} to {high:g} are read as float32, which rounds them "
        f"to multiples of {step:g}"
    ]
