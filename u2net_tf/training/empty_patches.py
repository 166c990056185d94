"""Patches that are all 0: they count in the loss, but their gradient is stopped.

If intensity statistics are those of positive voxels, the background of a scan is
exactly 0, and so are patches within it. In a new network, whose biases and β are 0, all
feature maps of such a patch are constant and 0, too: an instance normalization with
variance 0 multiplies the gradient by 1/√ε = 316. In the default network, with up to 60
of them in a row, a gradient of 10² grows to 10²⁶: float16 cannot represent it with any
loss scale, nor float32 its square. In later steps, these feature maps only contain the
effect of small biases at the borders, and their gradient is still 10 to 100 times that
of other patches and dominates Adam's moments.

There is nothing to learn from such a patch: prediction skips windows in which a scan is
all 0 and labels them background. A patch with another constant value is different:
zero padding gives its feature maps an edge, and its gradient is normal.

The gradient is stopped here, at the logits, and not in each normalization: small, deep
feature maps of a single voxel, or of equal voxels, are constant in every patch, and the
layers before them would not be trained.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def stop_gradient_of_empty(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns `logits`, with the gradient of patches that are all 0 stopped.

    Args:
      images: (B, z, y, x, C), the patches.
      logits: (B, …), logits of the patches or of their voxels.
    """
    is_nonzero = tf.reduce_any(tf.not_equal(images, 0), axis=[1, 2, 3, 4])[
        :, tf.newaxis
    ]

    @tf.custom_gradient
    def stop(logits: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # One row per patch: broadcasting over five axes takes three times as long.
            rows = tf.reshape(upstream, [tf.shape(upstream)[0], -1])
            zero = tf.zeros([], upstream.dtype)
            return tf.reshape(tf.where(is_nonzero, rows, zero), tf.shape(upstream))

        return tf.identity(logits), gradient

    return stop(logits)
