"""Implementations of operations that may replace those of *xla_module*.

`tools.bench.hlo.emit` writes complete steps with them, so that they can be measured on
a GPU before training uses them (docs/performance.md, "On a GPU").
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from unittest import mock

import tensorflow as tf

from u2net_tf.networks.ops import IMPLEMENTATIONS, use_implementation
from u2net_tf.networks.ops.implementations import Operations, plain, xla_module
from u2net_tf.networks.ops.precision import accumulation_dtype
from u2net_tf.networks.ops.shapes import Factors, dims


def padded_depthwise_conv3d(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factors: Factors
) -> tf.Tensor:
    """Pads the inputs beforehand, so that no tap has to test for the border.

    Up-sampled inputs are convolved as by *xla_module*.
    """
    if max(factors) > 1:
        return xla_module.depthwise_conv3d(inputs, kernel, bias, factors)
    (padded,) = xla_module.barrier(_pad(inputs, kernel))
    wide = _widen(padded)
    parts = [
        window * tf.cast(kernel[tap], wide.dtype)
        for tap, window in _windows(wide, inputs, kernel)
    ]
    if bias is not None:
        parts.append(tf.cast(bias, wide.dtype))
    return xla_module.barrier(tf.cast(sum(parts[1:], parts[0]), inputs.dtype))[0]


def padded_depthwise_input_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Convolves the gradient of the outputs with the flipped kernel in the same way."""
    if max(factors) > 1:
        return xla_module.depthwise_input_gradient(inputs, upstream, kernel, factors)
    flipped = tf.reverse(kernel, axis=[0, 1, 2])
    return padded_depthwise_conv3d(upstream, flipped, None, factors)


def summed_depthwise_kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    """Sums over voxels, for each tap, the inputs it reads times the gradient."""
    # Otherwise, XLA would compute what precedes them again for each tap.
    inputs, upstream = xla_module.barrier(inputs, upstream)
    padded, upstream = _widen(_pad(inputs, kernel)), _widen(upstream)
    sums = [
        tf.reduce_sum(window * upstream, axis=[0, 1, 2, 3])
        for _, window in _windows(padded, inputs, kernel)
    ]
    return tf.cast(tf.reshape(tf.stack(sums), kernel.shape), kernel.dtype)


def sub_voxel_conv3d(
    groups: Sequence[tf.Tensor], kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """Calls `xla_module.conv3d`, except for the input gradients of strided kernels.

    These are convolutions of stride 1, whose outputs have the channels of all voxels of
    the inputs that a stride covers.
    """
    sizes = groups[0].shape[1:4]
    is_divisible = None not in sizes and not any(
        size % stride for size, stride in zip(sizes, strides, strict=True)
    )
    if max(strides) == 1 or len(groups) > 1 or not is_divisible:
        return xla_module.conv3d(groups, kernel, strides)

    @tf.custom_gradient
    def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_inputs = strided_input_gradient(upstream, kernel, strides)
            by_kernel = xla_module.gradient_by_matrix_products(
                inputs, upstream, kernel.shape, strides
            )
            return by_inputs, by_kernel

        return plain.conv3d([inputs], kernel, strides), gradient

    return convolve(groups[0], kernel)


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


def _pad(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    paddings = ([size // 2] * 2 for size in kernel.shape[:3])
    return tf.pad(inputs, [[0, 0], *paddings, [0, 0]])


def _widen(tensor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tensor, accumulation_dtype(tensor.dtype))


def _windows(
    padded: tf.Tensor, inputs: tf.Tensor, kernel: tf.Tensor
) -> Iterator[tuple[tuple[int, int, int], tf.Tensor]]:
    """Yields each tap of a kernel with the part of the padded inputs that it reads."""
    _, depth, height, width, _ = dims(inputs)
    for d, h, w in itertools.product(*map(range, kernel.shape[:3])):
        yield (
            (d, h, w),
            padded[:, d : d + depth, h : h + height, w : w + width],
        )


_PADDED = {
    "depthwise_conv3d": padded_depthwise_conv3d,
    "depthwise_input_gradient": padded_depthwise_input_gradient,
}
_SUMS = {"depthwise_kernel_gradient": summed_depthwise_kernel_gradient}
_SUB_VOXEL = {"conv3d": sub_voxel_conv3d}
# Name -> operations, most of which are those of "xla_module".
CANDIDATES: Mapping[str, Operations] = {
    name: dataclasses.replace(IMPLEMENTATIONS["xla_module"], **replaced)
    for name, replaced in {
        "padded": _PADDED,
        "sums": _SUMS,
        "sub_voxel": _SUB_VOXEL,
        "padded_sums": _PADDED | _SUMS,
        "padded_sums_sub_voxel": _PADDED | _SUMS | _SUB_VOXEL,
    }.items()
}


@contextlib.contextmanager
def use_candidate(name: str) -> Iterator[None]:
    """Sets the implementation of operations, as `ops.use_implementation` does.

    Args:
        name: a candidate or one of the implementations of `ops`.
    """
    # A table that others could extend would let training use what was not measured.
    with mock.patch.dict(IMPLEMENTATIONS, CANDIDATES), use_implementation(name):
        yield
