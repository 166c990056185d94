"""Per-channel bias and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from u2net_tf.networks.ops.custom_gradients import custom_gradient
from u2net_tf.networks.ops.precision import accumulation_dtype


def add_bias(feature_maps: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Adds a bias per channel; its gradient is summed in float32.

    TensorFlow would sum it in half precision, where a sum over many voxels stops
    growing.

    Args:
      feature_maps: Tensor of shape (N, D, H, W, C).
      bias: Tensor of shape (C,), of the dtype of `feature_maps`.

    Returns:
      A tensor of the shape and dtype of `feature_maps`.
    """

    @custom_gradient
    def add(feature_maps: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream, sum_over_voxels(upstream)

        return tf.nn.bias_add(feature_maps, bias), gradient

    return add(tf.convert_to_tensor(feature_maps), tf.convert_to_tensor(bias))


def sum_over_voxels(feature_maps: tf.Tensor) -> tf.Tensor:
    """Sums (N, D, H, W, C) to (C,) in at least float32; returns the input dtype."""
    # Each depth slice first: more accurate than summing all voxels in sequence.
    wide = tf.cast(feature_maps, accumulation_dtype(feature_maps.dtype))
    total = tf.reduce_sum(tf.reduce_sum(wide, axis=[2, 3]), axis=[0, 1])
    return tf.cast(total, feature_maps.dtype)
