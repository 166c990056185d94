"""Resizing of patches between a domain's patch size and the network's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from u2net_tf.config.data import RESIZE_METHODS

# Slope of the cubic kernel: the value for which it reproduces parabolas.
_CUBIC_SLOPE = -0.5


def interpolation_matrix(new: int, old: int, method: str) -> np.ndarray:
    """The (new, old) matrix that resizes one axis over the same extent.

    Positions beyond the outermost voxel centres take the outermost voxels.

    Args:
      new: voxels after resizing.
      old: voxels before.
      method: "linear" or "cubic" (Keys 1981, a = -0.5).

    Returns:
      float64; each row sums to 1.
    """
    if method not in RESIZE_METHODS:
        raise ValueError(
            f"method: expected one of {RESIZE_METHODS}. Received: {method!r}"
        )
    positions = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(positions).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.clip(first + tap, 0, old - 1)
        weight = _kernel(np.abs(positions - (first + tap)), method)
        np.add.at(matrix, (np.arange(new), index), weight)
    return matrix


def _kernel(distance: np.ndarray, method: str) -> np.ndarray:
    if method == "linear":
        return np.maximum(1 - distance, 0)
    a = _CUBIC_SLOPE
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def cubic_weights(share: tf.Tensor) -> list[tf.Tensor]:
    """Weights of the four neighbours for a share of the way from the second to third.

    Those of "cubic" in `interpolation_matrix`.
    """
    square, cube = share**2, share**3
    return [
        0.5 * (-share + 2 * square - cube),
        0.5 * (2 - 5 * square + 3 * cube),
        0.5 * (share + 4 * square - 3 * cube),
        0.5 * (-square + cube),
    ]


def resize_image(
    image: tf.Tensor, size: Sequence[int], *, method: str = "linear"
) -> tf.Tensor:
    """Resizes an image over the same extent, one axis after the other.

    Args:
      image: (N, z, y, x, C) float, static but for N.
      size: new z, y, x.
      method: "linear" or "cubic".

    Returns:
      (N, *size, C). The image itself where the size is the same.
    """
    shape = image.shape.as_list()
    for axis, new in enumerate(size, start=1):
        old, shape[axis] = shape[axis], new
        if old == new:
            continue
        matrix = interpolation_matrix(new, old, method)
        if axis == 3:
            # The last axis takes the channels along: one product of two matrices
            # instead of one per row of voxels.
            matrix = np.kron(matrix, np.eye(shape[4]))
            rows = tf.reshape(image, [-1, old * shape[4]])
            image = tf.matmul(rows, tf.constant(matrix.T, image.dtype))
        else:
            slabs = tf.reshape(image, [-1, old, math.prod(shape[axis + 1 :])])
            image = tf.matmul(tf.constant(matrix, image.dtype), slabs)
        image = tf.reshape(image, [-1, *shape[1:]])
    return image


def resize_labels(labels: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Resizes (N, z, y, x) labels over the same extent, nearest neighbour."""
    for axis, new in enumerate(size, start=1):
        old = labels.shape[axis]
        if old != new:
            positions = np.floor((np.arange(new) + 0.5) * old / new).astype(int)
            labels = tf.gather(labels, np.minimum(positions, old - 1), axis=axis)
    return labels
