"""Max pooling."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.networks.ops.shapes import check_factors, check_rank_5, dims, product


def max_pool(inputs: tf.Tensor, factors: Sequence[int]) -> tf.Tensor:
    """Returns the maxima of blocks of voxels.

    Of equal voxels, the first gets the gradient, along each axis in turn.

    Args:
      inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
      factors: Three integers of at least 1, the sizes of the blocks along D, H, W,
        which must be divisible by them.

    Returns:
      A tensor of shape (N, D/fd, H/fh, W/fw, C).

    Raises:
      ValueError: If `inputs` is not of rank 5 or `factors` not three such integers.
    """
    outputs = tf.convert_to_tensor(inputs)
    check_rank_5(outputs)
    # One axis at a time: TensorFlow's own pooling has no float64 on the CPU, and a
    # reduction over three axes of eight copies its input.
    for axis, factor in enumerate(check_factors("factors", factors), start=1):
        if factor > 1:
            shape = dims(outputs)
            shape[axis] = shape[axis] // factor
            rows = tf.reshape(outputs, [-1, factor, product(shape[axis + 1 :])])
            maxima = functools.reduce(tf.maximum, tf.unstack(rows, axis=1))
            outputs = tf.reshape(maxima, shape)
    return outputs
