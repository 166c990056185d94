"""Which slice of a volume a picture shows, in which greys, and which way up."""

from __future__ import annotations

import numpy as np


def choose_slice(labels: np.ndarray, along: int = 0) -> int:
    """Returns the slice along an axis with most foreground; the middle one if none."""
    planes = np.moveaxis(labels, along, 0)
    # Plane by plane: a mask of a large volume takes memory.
    areas = np.array([np.count_nonzero(plane) for plane in planes])
    return int(areas.argmax()) if areas.any() else len(areas) // 2


def choose_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float]:
    """Returns the grey values for black and white, from around the foreground.

    The air around a patient would otherwise take the greys that the organ needs.

    Args:
      image: (rows, columns) of a slice.
      foreground: (rows, columns) mask.
    """
    box = []
    for axis in (0, 1):
        inside = np.flatnonzero(foreground.any(axis=1 - axis))
        if not inside.size:
            return spread(image)
        margin = (inside[-1] - inside[0] + 1) // 4 + 1
        box.append(slice(max(inside[0] - margin, 0), inside[-1] + margin + 1))
    return spread(image[tuple(box)])


def spread(values: np.ndarray) -> tuple[float, float]:
    """Returns the 1st and 99th percentile, never equal; the air is kept out."""
    values = values.astype(np.float64)
    low, middle, high = np.percentile(values, (1, 50, 99))
    deviation = np.median(np.abs(values - middle))
    if deviation > 0:
        low = max(low, middle - 5 * deviation)
    return float(low), float(max(high, low + 1e-6))


def as_picture(plane: np.ndarray) -> np.ndarray:
    """Turns `[y, x]`, to the front and right, into rows from front, columns from right.

    Row 0 is the top of the picture.
    """
    return plane[::-1, ::-1]
