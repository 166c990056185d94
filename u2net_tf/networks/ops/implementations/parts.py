"""The dense convolution of parts that count as one map, for training on a CPU.

What it keeps for the backward pass are the parts, which others keep as well, and not
the concatenated map.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.custom_gradients import custom_gradient
from u2net_tf.networks.ops.implementations import plain
from u2net_tf.networks.ops.shapes import dims, product

# With fewer input channels per filter, TensorFlow's gradient of the kernel is as fast.
_MIN_CHANNELS_PER_FILTER = 2
_STRIDES = (1, 1, 1)


def conv3d_of_parts(parts: Sequence[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
    """Convolves with stride 1 and an odd kernel; its gradient computes no other."""
    is_half = parts[0].dtype in (tf.float16, tf.bfloat16)
    if is_half or len(parts) == 1 or max(kernel.shape[:3]) == 1:
        return plain.conv3d(parts, kernel, _STRIDES)
    channels = [part.shape[-1] for part in parts]
    options = {"strides": [1, *_STRIDES, 1], "padding": "SAME"}

    @custom_gradient
    def convolve(
        kernel: tf.Tensor, *parts: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            # Not joined before the gradient is here, which would keep it till then.
            joined = tf.concat(plain.wait_for(upstream, parts), axis=-1)
            inputs_gradient = tf.raw_ops.Conv3DBackpropInputV2(
                input_sizes=tf.shape(joined),
                filter=kernel,
                out_backprop=upstream,
                **options,
            )
            return [
                _kernel_gradient(joined, upstream, kernel.shape),
                *tf.split(inputs_gradient, channels, axis=-1),
            ]

        return plain.conv3d(parts, kernel, _STRIDES), gradient

    return convolve(kernel, *parts)


def _kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel_shape: tf.TensorShape
) -> tf.Tensor:
    channels, filters = kernel_shape[3:]
    if channels < _MIN_CHANNELS_PER_FILTER * filters:
        return tf.raw_ops.Conv3DBackpropFilterV2(
            input=inputs,
            filter_sizes=kernel_shape,
            out_backprop=upstream,
            strides=[1, *_STRIDES, 1],
            padding="SAME",
        )
    return _gradient_by_matrix_products(inputs, upstream, kernel_shape)


def _gradient_by_matrix_products(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel_shape: tf.TensorShape
) -> tf.Tensor:
    """A product of matrices for each pair of taps along D and H.

    Padded maps are rows of voxels, in which a tap is an offset. The zeros behind each
    line, plane and sample of the upstream gradient silence what lies beyond them. The
    taps along W are side by side, because narrow products are slow.
    """
    taps_d, taps_h, taps_w, channels, filters = kernel_shape
    taps = (taps_d, taps_h, taps_w)
    around = [[size // 2] * 2 for size in taps]
    behind = [[0, size - 1] for size in taps]
    padded = tf.pad(inputs, [[0, 0], *around, [0, 0]])
    _, _, height, width, _ = dims(padded)
    rows = tf.reshape(padded, [-1, channels])
    given = tf.pad(upstream, [[0, 0], *behind, [0, 0]])
    given = tf.reshape(given, [-1, filters])
    furthest = (taps_d - 1) * height * width + (taps_h - 1) * width
    num_rows = product(dims(padded)[:4]) - furthest
    beside = [
        tf.pad(given, [[tap, taps_w - 1 - tap], [0, 0]])[:num_rows]
        for tap in range(taps_w)
    ]
    # The last tap is first: what is given is moved, and not what is seen.
    given = tf.concat(beside, axis=-1)
    products = []
    for tap_d, tap_h in itertools.product(range(taps_d), range(taps_h)):
        start = tap_d * height * width + tap_h * width
        seen = tf.slice(rows, [start, 0], [num_rows, -1])
        products.append(tf.matmul(seen, given, transpose_a=True))
    shape = [taps_d, taps_h, channels, taps_w, filters]
    by_tap = tf.reshape(tf.stack(products), shape)
    return tf.transpose(by_tap, [0, 1, 3, 2, 4])
