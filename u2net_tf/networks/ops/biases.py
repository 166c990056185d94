"""A bias per channel, and its gradient."""

import tensorflow as tf

from u2net_tf.networks.ops.implementations import exact_dtype


def add_bias(maps, bias):
    """Adds a bias to (N, D, H, W, C) maps; its gradient is added up in float32.

    TensorFlow adds up half precision in half precision, where a sum over many voxels
    no longer grows.

    Args:
        maps: Tensor of shape (N, D, H, W, C).
        bias: Tensor of shape (C,) and of the dtype of `maps`.

    Returns:
        A tensor of the shape and dtype of `maps`.
    """

    @tf.custom_gradient
    def add(maps, bias):
        def gradient(upstream):
            return upstream, sum_over_voxels(upstream)

        return tf.nn.bias_add(maps, bias), gradient

    return add(tf.convert_to_tensor(maps), tf.convert_to_tensor(bias))


def sum_over_voxels(maps):
    """Adds up (N, D, H, W, C) maps, in float32 at least, to (C,) of their dtype."""
    # First over each depth slice: more accurate than all voxels one after the other.
    wide = tf.cast(maps, exact_dtype(maps.dtype))
    total = tf.reduce_sum(tf.reduce_sum(wide, axis=[2, 3]), axis=[0, 1])
    return tf.cast(total, maps.dtype)
