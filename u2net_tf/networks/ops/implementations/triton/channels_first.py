"""Convolutions by matrix products of maps whose channels come first.

XLA keeps feature maps in this order on a GPU, because sums over voxels are faster in
it. A product in which the samples are an axis of their own reads the maps as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from u2net_tf.networks.ops.shapes import dims


def pointwise(inputs: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Multiplies the channels of every voxel by a matrix.

    Args:
      inputs: (N, D, H, W, C).
      matrix: (C, F).

    Returns:
      (N, D, H, W, F).
    """

    @tf.custom_gradient
    def multiply(inputs: tf.Tensor, matrix: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_matrix = sum_of_outer_products(inputs, upstream)
            return _product(matrix, upstream), by_matrix

        return _product(tf.transpose(matrix), inputs), gradient

    return multiply(inputs, matrix)


def sum_of_outer_products(maps: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the sum over voxels of the outer products of their channels.

    Args:
      maps: (N, D, H, W, C).
      others: (N, D, H, W, F).

    Returns:
      (C, F).
    """
    products = tf.matmul(_columns(maps), _columns(others), transpose_b=True)
    return tf.reduce_sum(products, axis=0)


def _product(matrix: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """Returns the products of a matrix (F, C) and the channels of every voxel."""
    num, *size, _ = dims(maps)
    per_sample = tf.broadcast_to(matrix, [num, *matrix.shape])
    products = tf.matmul(per_sample, _columns(maps))
    first = tf.reshape(products, [num, matrix.shape[0], *size])
    return tf.transpose(first, [0, 2, 3, 4, 1])


def _columns(maps: tf.Tensor) -> tf.Tensor:
    """Returns maps (N, D, H, W, C) as matrices (N, C, D·H·W)."""
    num, depth, height, width, channels = dims(maps)
    first = tf.transpose(maps, [0, 4, 1, 2, 3])
    return tf.reshape(first, [num, channels, depth * height * width])
