"""Patches that are 0 throughout: they count in the loss, but give no gradient.

With statistics over positive voxels the background of a scan is exactly 0, and so are
patches that lie in it. In a new network, whose biases and β are 0, all feature maps of
such a patch are 0, too, and constant: the gradient of an instance normalization with
variance 0 is 1/√ε = 316 times that of its outputs. Forty of them in a row make 10^26 of
it, which neither float32 nor any loss scale can hold. In the steps after that, the maps
are what the borders make of small biases, and the gradient still is 10 to 100 times
that of other patches, which is then all that Adam's moments know.

There is nothing to learn from such a patch: prediction does not compute windows over
which a scan is 0 throughout, but calls them background. A patch of another constant is
different: zero padding gives its maps an edge, and its gradient is an ordinary one.

The gradient is stopped here, at the logits, and not in each normalization: there, the
single voxel or the equal voxels of a small, deep map are constant in every patch, and
the variables behind it would not be trained.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def stop_gradient_of_empty(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns `logits`, through which patches that are 0 throughout get no gradient.

    Args:
      images: (B, z, y, x, C), the patches.
      logits: (B, …), those of the patches or of their voxels.
    """
    filled = tf.reduce_any(tf.not_equal(images, 0), axis=[1, 2, 3, 4])[:, tf.newaxis]

    @tf.custom_gradient
    def stop(logits: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # A row per patch: to broadcast over five axes takes three times as long.
            rows = tf.reshape(upstream, [tf.shape(upstream)[0], -1])
            zero = tf.zeros([], upstream.dtype)
            return tf.reshape(tf.where(filled, rows, zero), tf.shape(upstream))

        return tf.identity(logits), gradient

    return stop(logits)
