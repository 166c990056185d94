"""Input gradients of strided convolutions, without a stride.

Each is a convolution of the gradient of the outputs, whose outputs have the channels of
all voxels of the inputs that a stride covers (a sub-voxel convolution).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.networks.ops.shapes import dims


def strided_input_gradient(
    upstream: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """Computes the input gradient of a convolution with 'SAME' padding.

    Args:
      upstream: gradient of the outputs (N, D, H, W, F).
      kernel: (kd, kh, kw, C, F).
      strides: along D, H, W; they divide the sizes of the inputs.

    Returns:
      Gradient of the inputs (N, D·sd, H·sh, W·sw, C).
    """
    num, *sizes, _ = dims(upstream)
    *kernel_sizes, channels, filters = kernel.shape
    parts, paddings = kernel, []
    for axis, (size, stride) in enumerate(zip(kernel_sizes, strides, strict=True)):
        # Voxel s·q + r of the inputs is read by tap r + before + s·m of voxel q - m of
        # the outputs.
        before = max(size - stride, 0) // 2
        last = (size - 1 - before) // stride
        first = -((stride - 1 + before) // stride)
        paddings.append([last, -first])
        taps = tf.split(parts, size, axis=axis)
        absent = tf.zeros_like(taps[0])
        by_position = [
            [position + before + stride * m for m in range(last, first - 1, -1)]
            for position in range(stride)
        ]
        parts = tf.stack(
            [
                tf.concat(
                    [taps[tap] if 0 <= tap < size else absent for tap in of_position],
                    axis=axis,
                )
                for of_position in by_position
            ],
            axis=3 + axis,
        )
    # (taps along D, H, W, sd, sh, sw, C, F) -> (taps along D, H, W, F, sd·sh·sw·C)
    moved = tf.transpose(parts, [0, 1, 2, 7, 3, 4, 5, 6])
    sub_kernel = tf.reshape(moved, [*moved.shape[:3], filters, -1])
    padded = tf.pad(upstream, [[0, 0], *paddings, [0, 0]])
    blocks = tf.nn.conv3d(padded, sub_kernel, strides=[1] * 5, padding="VALID")
    blocks = tf.reshape(blocks, [num, *sizes, *strides, channels])
    blocks = tf.transpose(blocks, [0, 1, 4, 2, 5, 3, 6, 7])
    whole = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    return tf.reshape(blocks, [num, *whole, channels])
