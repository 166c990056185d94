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

_MODULE = IMPLEMENTATIONS["xla_module"]


def padded_depthwise_conv3d(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factors: Factors
) -> tf.Tensor:
    """Convolves inputs that were padded before, so that no tap tests for the border.

    Up-sampled inputs are convolved as by *xla_module*.
    """
    if max(factors) > 1:
        return _MODULE.depthwise_conv3d(inputs, kernel, bias, factors)
    (padded,) = xla_module.barrier(_pad(inputs, kernel))
    wide, dtype = _widen(padded)
    parts = [
        window * tf.cast(kernel[tap], dtype)
        for tap, window in _windows(wide, inputs, kernel)
    ]
    if bias is not None:
        parts.append(tf.cast(bias, dtype))
    return xla_module.barrier(tf.cast(sum(parts[1:], parts[0]), inputs.dtype))[0]


def padded_depthwise_input_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Convolves the gradient of the outputs likewise with the flipped kernel."""
    if max(factors) > 1:
        return _MODULE.depthwise_input_gradient(inputs, upstream, kernel, factors)
    flipped = tf.reverse(kernel, axis=[0, 1, 2])
    return padded_depthwise_conv3d(upstream, flipped, None, factors)


def summed_depthwise_kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    """Sums over voxels, for each tap, the inputs it reads times the gradient."""
    # Otherwise, XLA would compute what precedes them again for each tap.
    inputs, upstream = xla_module.barrier(inputs, upstream)
    wide, _ = _widen(_pad(inputs, kernel))
    wide_upstream, _ = _widen(upstream)
    sums = [
        tf.reduce_sum(window * wide_upstream, axis=[0, 1, 2, 3])
        for _, window in _windows(wide, inputs, kernel)
    ]
    return tf.cast(tf.reshape(tf.stack(sums), kernel.shape), kernel.dtype)


def sub_voxel_conv3d(
    groups: Sequence[tf.Tensor], kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """Calls `xla_module.conv3d`; computes input gradients of strides by a convolution.

    The convolution has stride 1 and as many output channels as a voxel of the outputs
    has voxels of the inputs, times the channels.
    """
    sizes = groups[0].shape[1:4]
    is_divisible = None not in sizes and not any(
        size % stride for size, stride in zip(sizes, strides, strict=True)
    )
    if max(strides) == 1 or len(groups) > 1 or not is_divisible:
        return _MODULE.conv3d(groups, kernel, strides)

    @tf.custom_gradient
    def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return strided_input_gradient(
                upstream, kernel, strides
            ), xla_module.gradient_by_matrix_products(
                inputs, upstream, kernel.shape, strides
            )

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
    num, depth, height, width, _ = dims(upstream)
    *_, channels, filters = kernel.shape
    parts, paddings = kernel, []
    for axis, stride in enumerate(strides):
        size = kernel.shape[axis]
        first = max(size - stride, 0) // 2
        # Voxel s·q + r of the inputs is read by tap t of voxel q - m of the outputs if
        # t = r + first + s·m.
        low = -((stride - 1 + first) // stride)
        high = (size - 1 - first) // stride
        paddings.append([max(high, 0), max(-low, 0)])
        # From the voxel before to the voxel after.
        steps = range(high, low - 1, -1)
        parts = tf.stack(
            [
                tf.concat(
                    [
                        _tap(parts, axis, position + first + stride * step)
                        for step in steps
                    ],
                    axis=axis,
                )
                for position in range(stride)
            ],
            axis=3 + axis,
        )
    # (taps along D, H, W, sd, sh, sw, C, F) -> (taps, F, sd, sh, sw, C)
    moved = tf.transpose(parts, [0, 1, 2, 7, 3, 4, 5, 6])
    sub_kernel = tf.reshape(moved, [*moved.shape[:3], filters, -1])
    padded = tf.pad(upstream, [[0, 0], *paddings, [0, 0]])
    blocks = tf.nn.conv3d(padded, sub_kernel, strides=[1] * 5, padding="VALID")
    blocks = tf.reshape(blocks, [num, depth, height, width, *strides, channels])
    blocks = tf.transpose(blocks, [0, 1, 4, 2, 5, 3, 6, 7])
    whole = [
        size * stride
        for size, stride in zip((depth, height, width), strides, strict=True)
    ]
    return tf.reshape(blocks, [num, *whole, channels])


def _tap(kernel: tf.Tensor, axis: int, tap: int) -> tf.Tensor:
    """Returns a tap of an axis, which is kept, or zeros where there is none."""
    is_present = 0 <= tap < kernel.shape[axis]
    part = tf.gather(kernel, [tap if is_present else 0], axis=axis)
    return part if is_present else tf.zeros_like(part)


def _pad(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    radii = ([size // 2] * 2 for size in kernel.shape[:3])
    return tf.pad(inputs, [[0, 0], *radii, [0, 0]])


def _widen(tensor: tf.Tensor) -> tuple[tf.Tensor, tf.DType]:
    dtype = accumulation_dtype(tensor.dtype)
    return tf.cast(tensor, dtype), dtype


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
    name: dataclasses.replace(_MODULE, **replaced)
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
    with mock.patch.dict(IMPLEMENTATIONS, CANDIDATES), use_implementation(name):
        yield
