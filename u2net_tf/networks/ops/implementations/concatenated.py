"""Dense convolution of concatenated inputs, for training on a CPU.

For the backward pass it keeps the inputs, which other operations keep as well, and not
the concatenated map.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.custom_gradients import custom_gradient
from u2net_tf.networks.ops.implementations import plain
from u2net_tf.networks.ops.shapes import dims, product

# With fewer input channels per filter, TensorFlow's kernel gradient is as fast.
_MIN_CHANNELS_PER_FILTER = 2
_STRIDES = (1, 1, 1)


def conv3d_concatenated(inputs: Sequence[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
    """Convolves concatenated inputs, with stride 1 and an odd kernel only."""
    is_half = inputs[0].dtype in (tf.float16, tf.bfloat16)
    if is_half or len(inputs) == 1 or max(kernel.shape[:3]) == 1:
        return plain.conv3d(inputs, kernel, _STRIDES)
    channels = [tensor.shape[-1] for tensor in inputs]
    options = {"strides": [1, *_STRIDES, 1], "padding": "SAME"}

    @custom_gradient
    def convolve(
        kernel: tf.Tensor, *inputs: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            # Concatenated after the upstream gradient exists, so as not to be kept.
            concatenated = tf.concat(plain.wait_for(upstream, inputs), axis=-1)
            inputs_gradient = tf.raw_ops.Conv3DBackpropInputV2(
                input_sizes=tf.shape(concatenated),
                filter=kernel,
                out_backprop=upstream,
                **options,
            )
            return [
                _kernel_gradient(concatenated, upstream, kernel.shape),
                *tf.split(inputs_gradient, channels, axis=-1),
            ]

        return plain.conv3d(inputs, kernel, _STRIDES), gradient

    return convolve(kernel, *inputs)


def _kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel_shape: tf.TensorShape
) -> tf.Tensor:
    if plain.sums_in_float16(inputs.dtype):
        wide, wide_upstream = (tf.cast(t, tf.float32) for t in (inputs, upstream))
        gradient = _kernel_gradient(wide, wide_upstream, kernel_shape)
        return tf.cast(gradient, inputs.dtype)
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
    """Computes the kernel gradient by a matrix product per pair of taps along D and H.

    The padded maps are flattened to rows of voxels, in which a tap is an offset. Zeros
    after each line, plane and sample of the upstream gradient mask the voxels beyond.
    The taps along W are concatenated, because narrow products are slow.
    """
    taps_d, taps_h, taps_w, channels, filters = kernel_shape
    taps = (taps_d, taps_h, taps_w)
    paddings = [[size // 2] * 2 for size in taps]
    upstream_paddings = [[0, size - 1] for size in taps]
    padded = tf.pad(inputs, [[0, 0], *paddings, [0, 0]])
    _, _, height, width, _ = dims(padded)
    rows = tf.reshape(padded, [-1, channels])
    upstream = tf.pad(upstream, [[0, 0], *upstream_paddings, [0, 0]])
    upstream_rows = tf.reshape(upstream, [-1, filters])
    max_offset = (taps_d - 1) * height * width + (taps_h - 1) * width
    num_rows = product(dims(padded)[:4]) - max_offset
    # The upstream gradient is shifted along W, not the inputs.
    shifted = [
        tf.pad(upstream_rows, [[tap, taps_w - 1 - tap], [0, 0]])[:num_rows]
        for tap in range(taps_w)
    ]
    upstream_rows = tf.concat(shifted, axis=-1)
    products = []
    for tap_d, tap_h in itertools.product(range(taps_d), range(taps_h)):
        start = tap_d * height * width + tap_h * width
        input_rows = tf.slice(rows, [start, 0], [num_rows, -1])
        products.append(tf.matmul(input_rows, upstream_rows, transpose_a=True))
    shape = [taps_d, taps_h, channels, taps_w, filters]
    by_tap = tf.reshape(tf.stack(products), shape)
    return tf.transpose(by_tap, [0, 1, 3, 2, 4])
