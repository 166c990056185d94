"""Intensities as float32, and what its 24 bits lose of them."""

from __future__ import annotations

import os

import numpy as np
from nibabel.volumeutils import apply_read_scaling

from u2net_tf.errors import InputError

# Types of so many bytes are exact in float32. Of others, what rounding may take of the
# range of intensities without a note.
_EXACT_BYTES, _MAX_STEP = 2, 1e-3


def to_float32(
    stored: np.ndarray, slope: float, intercept: float, *, path: str | os.PathLike
) -> tuple[np.ndarray, list[str]]:
    """Makes intensities of voxels; what is too large becomes infinite.

    Args:
      stored: the voxels, of any shape.
      slope: factor of the voxels, 1 for none.
      intercept: added after that.
      path: the file, for errors.

    Returns:
      The intensities, the same array if it need not change; and a note if rounding
      takes more than a thousandth of their range.

    Raises:
      InputError: if they differ, and rounding makes them one.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if (slope, intercept) != (1, 0):
            stored = apply_read_scaling(
                stored, np.float64(slope), np.float64(intercept)
            )
        values = stored.astype(np.float32, copy=False)
    dtype = stored.dtype.newbyteorder("=")
    if dtype.itemsize <= _EXACT_BYTES or dtype == np.float32:
        return values, []
    low, high = float(values.min()), float(values.max())
    if low == high and stored.min() == stored.max():
        return values, []
    if low == high:
        raise InputError(
            path,
            expected="intensities that differ in float32",
            received=f"{stored.min()} to {stored.max()}, which it rounds to {low:.9g}",
        )
    return values, rounding_notes(values)


def rounding_notes(values: np.ndarray) -> list[str]:
    """A note if float32 has few steps between the lowest and the highest of values."""
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
