"""Resizing of tensors between the patch size of a domain and that of the network.

Uses the matrices and voxel positions of `interpolation`. Training resizes patches and
labels; prediction resizes windows and probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from u2net_tf.interpolation.matrices import interpolation_matrix
from u2net_tf.interpolation.positions import nearest_voxels


def resize_image(
    image: tf.Tensor, size: Sequence[int], *, method: str = "linear"
) -> tf.Tensor:
    """Resizes an image over the same extent, one axis after the other.

    Args:
      image: (N, z, y, x, C) float, static except for N.
      size: New size along z, y, x.
      method: "linear" or "cubic".

    Returns:
      (N, *size, C). The image itself if its size does not change.

    Raises:
      ValueError: If the size changes and `method` is unknown.
    """
    shape = image.shape.as_list()
    for axis, new in enumerate(size, start=1):
        old, shape[axis] = shape[axis], new
        if old == new:
            continue
        matrix = interpolation_matrix(new, old, method)
        if axis == 3:
            # The last axis is resized together with the channels, by one matrix
            # product instead of one per row of voxels.
            matrix = np.kron(matrix, np.eye(shape[4]))
            rows = tf.reshape(image, [-1, old * shape[4]])
            image = tf.matmul(rows, tf.constant(matrix.T, image.dtype))
        else:
            slabs = tf.reshape(image, [-1, old, math.prod(shape[axis + 1 :])])
            image = tf.matmul(tf.constant(matrix, image.dtype), slabs)
        image = tf.reshape(image, [-1, *shape[1:]])
    return image


def resize_labels(labels: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Resizes labels over the same extent, nearest neighbour.

    Args:
      labels: (N, z, y, x) integers, static except for N.
      size: New size along z, y, x.

    Returns:
      (N, *size) of the same type. The labels themselves if their size does not change.
    """
    for axis, new in enumerate(size, start=1):
        old = labels.shape[axis]
        if old != new:
            labels = tf.gather(labels, nearest_voxels(new, old), axis=axis)
    return labels
