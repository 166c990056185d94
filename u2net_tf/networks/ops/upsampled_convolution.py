"""Convolution of feature maps of several resolutions, up-sampled to the finest.

A convolution is a sum over the taps of its kernel: each tap projects the channels of a
voxel, and the projected map is shifted. Up-sampling is channelwise, so the projection
can come first, where there are fewer voxels and all channels are read once. What
remains is one matrix per axis that up-samples and shifts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.networks.ops.biases import add_bias
from u2net_tf.networks.ops.implementations import IMPLEMENTATIONS, check_implementation
from u2net_tf.networks.ops.precision import accumulation_dtype
from u2net_tf.networks.ops.shapes import (
    Factors,
    check_factors,
    check_rank_5,
    dims,
    product,
)
from u2net_tf.networks.ops.upsampling import linear_matrix, upsample_linear

# An input of which each voxel becomes at least this many is projected first.
MIN_VOXELS_TO_PROJECT = 8


def conv3d_upsampled(
    inputs: Sequence[tf.Tensor],
    kernel: tf.Tensor,
    bias: tf.Tensor | None = None,
    *,
    factors: Sequence[Sequence[int]],
    align_corners: bool = False,
    implementation: str | None = None,
) -> tf.Tensor:
    """Convolves linearly up-sampled inputs as if concatenated.

    Neither the concatenated map nor large up-sampled inputs are materialized.

    Args:
      inputs: Tensors of shape (N, D/fd, H/fh, W/fw, C); all but C may be unknown.
      kernel: Tensor of shape (kd, kh, kw, C, F), odd kd, kh, kw, and C the channels of
        all inputs together.
      bias: Tensor of shape (F,), added to the outputs, or None.
      factors: For each input three integers of at least 1: fd, fh and fw.
      align_corners: See `upsample_linear`.
      implementation: One of `IMPLEMENTATIONS`; the current one (see
        `use_implementation`) if None.

    Returns:
      A tensor of shape (N, D, H, W, F), of the dtype of the inputs ('SAME' padding).

    Raises:
      ValueError: If an input is not of rank 5, a size of `kernel` is even, its channels
        do not match the inputs, or `factors` are not three such integers per input.
    """
    tensors = [tf.convert_to_tensor(tensor) for tensor in inputs]
    kernel = tf.convert_to_tensor(kernel)
    for tensor in tensors:
        check_rank_5(tensor)
    checked = [check_factors("factors", each) for each in factors]
    channels = [tensor.shape[-1] for tensor in tensors]
    if len(checked) != len(tensors) or sum(channels) != kernel.shape[3]:
        raise ValueError(
            "`kernel` must have the channels of all inputs, and `factors` one entry "
            f"per input. Received: channels={channels}, kernel.shape={kernel.shape}, "
            f"factors={checked}"
        )
    if any(size % 2 == 0 for size in kernel.shape[:3]):
        raise ValueError(
            f"`kernel` must be of odd size. Received: kernel.shape={kernel.shape}"
        )
    name = check_implementation(implementation)
    parts = list(zip(tensors, tf.split(kernel, channels, axis=3), checked, strict=True))
    is_coarse = [math.prod(each) >= MIN_VOXELS_TO_PROJECT for each in checked]
    summands = [
        _project_first(tensor, own_kernel, each, align_corners)
        for (tensor, own_kernel, each), coarse in zip(parts, is_coarse, strict=True)
        if coarse
    ]
    if not all(is_coarse):
        others = [
            part for part, coarse in zip(parts, is_coarse, strict=True) if not coarse
        ]
        maps = [
            tensor
            if max(each) == 1
            else upsample_linear(tensor, each, align_corners=align_corners)
            for tensor, _, each in others
        ]
        own_kernels = tf.concat([own_kernel for _, own_kernel, _ in others], axis=3)
        summands.append(IMPLEMENTATIONS[name].conv3d_concatenated(maps, own_kernels))
    outputs = tf.add_n(summands)
    return outputs if bias is None else add_bias(outputs, bias)


def _project_first(
    inputs: tf.Tensor, kernel: tf.Tensor, factors: Factors, align_corners: bool
) -> tf.Tensor:
    """Convolves the up-sampled inputs: projects, then up-samples and shifts."""
    *sizes, channels, filters = kernel.shape
    taps_d, taps_h, taps_w = sizes
    num, depth, height, width, _ = dims(inputs)
    # The axes are processed in the order W, H, D, each followed by its own taps.
    by_tap = tf.reshape(tf.transpose(kernel, [3, 2, 0, 1, 4]), [channels, -1])
    outputs = tf.matmul(tf.reshape(inputs, [-1, channels]), by_tap)
    outputs = tf.cast(outputs, accumulation_dtype(inputs.dtype))

    def expand(
        size: int | tf.Tensor, factor: int, taps: int, rows: tf.Tensor
    ) -> tf.Tensor:
        matrix = _shifting_matrix(size, factor, taps, align_corners, rows.dtype)
        return tf.matmul(matrix, rows)

    slabs = [product([num, depth, height]), width * taps_w, taps_d * taps_h * filters]
    outputs = expand(width, factors[2], taps_w, tf.reshape(outputs, slabs))
    width = width * factors[2]

    slabs = [product([num, depth]), height, width * taps_d, taps_h, filters]
    outputs = tf.transpose(tf.reshape(outputs, slabs), [0, 1, 3, 2, 4])
    slabs = [product([num, depth]), height * taps_h, width * taps_d * filters]
    outputs = expand(height, factors[1], taps_h, tf.reshape(outputs, slabs))
    height = height * factors[1]

    slabs = [product([num, depth]), height * width, taps_d, filters]
    outputs = tf.transpose(tf.reshape(outputs, slabs), [0, 2, 1, 3])
    slabs = [num, depth * taps_d, product([height, width, filters])]
    outputs = expand(depth, factors[0], taps_d, tf.reshape(outputs, slabs))
    shape = [num, depth * factors[0], height, width, filters]
    return tf.cast(tf.reshape(outputs, shape), inputs.dtype)


def _shifting_matrix(
    size: int | tf.Tensor,
    factor: int,
    taps: int,
    align_corners: bool,
    dtype: tf.DType,
) -> tf.Tensor:
    """Returns the (size * factor, size * taps) matrix to up-sample and shift an axis.

    Taps see zeros beyond the up-sampled map.
    """
    matrix = linear_matrix(size, factor, align_corners, dtype)
    radius = taps // 2
    padded = tf.pad(matrix, [[radius, radius], [0, 0]])
    num_rows = size * factor
    shifted = [padded[tap : tap + num_rows] for tap in range(taps)]
    return tf.reshape(tf.stack(shifted, axis=2), [num_rows, size * taps])
