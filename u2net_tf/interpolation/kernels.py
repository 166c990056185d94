"""Interpolation kernels: weights of voxels by their distance from a position.

Functions of a distance take NumPy arrays. Functions of an offset are plain arithmetic
and take NumPy arrays and TensorFlow tensors alike: inside a graph they are cheaper than
the same kernel as a function of distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# Slope of Keys' kernel at distance 1: the value for which it reproduces parabolas.
_KEYS_SLOPE = -0.5


def linear(distance: np.ndarray) -> np.ndarray:
    """Evaluates the linear kernel at distances of at least 0."""
    return np.maximum(1 - distance, 0)


def keys_cubic(distance: np.ndarray) -> np.ndarray:
    """Evaluates Keys' cubic convolution kernel at distances of at least 0.

    Reference: Keys, IEEE Trans. Acoustics, Speech, and Signal Processing 1981,
    equation 15, with a = -0.5.
    """
    a = _KEYS_SLOPE
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def cubic_bspline(distance: np.ndarray) -> np.ndarray:
    """Evaluates the cubic B-spline at distances of at least 0.

    It weights the coefficients of a spline, not its values at the voxels.
    """
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)


# Kernels that interpolate: 1 at distance 0 and 0 at every other voxel.
KERNELS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": linear,
    "cubic": keys_cubic,
}


def check_method(method: str) -> None:
    """Checks that a kernel of this name exists.

    Raises:
      ValueError: if it does not.
    """
    if method not in KERNELS:
        raise ValueError(
            f"method: expected one of {tuple(KERNELS)}. Received: {method!r}"
        )


def linear_weights(offset: Any) -> list[Any]:
    """Returns the linear weights of the two nearest voxels.

    Args:
      offset: distance from the lower of the two voxels, 0 to 1.
    """
    return [1 - offset, offset]


def keys_cubic_weights(offset: Any) -> list[Any]:
    """Returns the `keys_cubic` weights of the four nearest voxels.

    Args:
      offset: distance from the second of the four voxels, 0 to 1.
    """
    square, cube = offset**2, offset**3
    return [
        0.5 * (-offset + 2 * square - cube),
        0.5 * (2 - 5 * square + 3 * cube),
        0.5 * (offset + 4 * square - 3 * cube),
        0.5 * (-square + cube),
    ]
