"""Slice, grey-level window and orientation of figures of a volume."""

from __future__ import annotations

import numpy as np


def choose_slice(labels: np.ndarray, along: int = 0) -> int:
    """Returns the slice along an axis with the most foreground, or the middle one."""
    planes = np.moveaxis(labels, along, 0)
    # Plane by plane, to avoid the memory of a mask of the entire volume.
    areas = np.array([np.count_nonzero(plane) for plane in planes])
    return int(areas.argmax()) if areas.any() else len(areas) // 2


def choose_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float]:
    """Returns the intensities for black and white, from around the foreground.

    Otherwise the air around a patient would take up much of the grey levels.

    Args:
      image: (rows, columns) intensities of a slice.
      foreground: (rows, columns) mask.
    """
    box = []
    for axis in (0, 1):
        inside = np.flatnonzero(foreground.any(axis=1 - axis))
        if not inside.size:
            return percentile_window(image)
        margin = (inside[-1] - inside[0] + 1) // 4 + 1
        box.append(slice(max(inside[0] - margin, 0), inside[-1] + margin + 1))
    return percentile_window(image[tuple(box)])


def percentile_window(values: np.ndarray) -> tuple[float, float]:
    """Returns the 1st and 99th percentile, never equal, with air mostly excluded."""
    values = values.astype(np.float64)
    low, middle, high = np.percentile(values, (1, 50, 99))
    deviation = np.median(np.abs(values - middle))
    if deviation > 0:
        low = max(low, middle - 5 * deviation)
    return float(low), float(max(high, low + 1e-6))


def as_picture(plane: np.ndarray) -> np.ndarray:
    """Flips a plane (y, x) so that row 0 is the front and column 0 the right."""
    return plane[::-1, ::-1]
