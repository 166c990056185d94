"""Nearest-neighbour and linear up-sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.interpolation.positions import resized_positions
from u2net_tf.networks.ops.custom_gradients import custom_gradient
from u2net_tf.networks.ops.implementations import IMPLEMENTATIONS, check_implementation
from u2net_tf.networks.ops.precision import accumulation_dtype
from u2net_tf.networks.ops.shapes import check_factors, check_rank_5, dims, product


def upsample_nearest(
    inputs: tf.Tensor, factors: Sequence[int], *, implementation: str | None = None
) -> tf.Tensor:
    """Repeats every voxel `factors` times along D, H, W.

    Args:
      inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
      factors: Three integers of at least 1, along D, H, W.
      implementation: One of `IMPLEMENTATIONS`; the current one (see
        `use_implementation`) if None.

    Returns:
      A tensor of shape (N, D·fd, H·fh, W·fw, C).

    Raises:
      ValueError: If `inputs` is not of rank 5, `factors` are not three such integers or
        `implementation` is unknown.
    """
    inputs = tf.convert_to_tensor(inputs)
    check_rank_5(inputs)
    checked = check_factors("factors", factors)
    operations = IMPLEMENTATIONS[check_implementation(implementation)]
    if checked == (1, 1, 1):
        return tf.identity(inputs)

    @custom_gradient
    def upsample(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return operations.repeat(inputs, checked), lambda upstream: pool(upstream)

    @custom_gradient
    def pool(upstream: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return operations.sum_pool(upstream, checked), lambda second: upsample(second)

    return upsample(inputs)


def upsample_linear(
    inputs: tf.Tensor,
    factors: Sequence[int],
    *,
    align_corners: bool = False,
    implementation: str | None = None,
) -> tf.Tensor:
    """Interpolates linearly between voxels, along D, H, W.

    Args:
      inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
      factors: Three integers of at least 1, along D, H, W.
      align_corners: Whether the centres of the outermost voxels are aligned; otherwise
        their outer faces are, as in `interpolation.positions`, and values beyond the
        outermost centres are clamped.
      implementation: One of `IMPLEMENTATIONS`; the current one (see
        `use_implementation`) if None.

    Returns:
      A tensor of shape (N, D·fd, H·fh, W·fw, C).

    Raises:
      ValueError: If `inputs` is not of rank 5, `factors` are not three such integers or
        `implementation` is unknown.
    """
    inputs = tf.convert_to_tensor(inputs)
    check_rank_5(inputs)
    checked = check_factors("factors", factors)
    if checked == (1, 1, 1):
        return tf.identity(inputs)
    operations = IMPLEMENTATIONS[check_implementation(implementation)]
    if operations.upsample_linear is not None:
        return operations.upsample_linear(inputs, checked, align_corners)
    outputs = tf.cast(inputs, accumulation_dtype(inputs.dtype))
    # The innermost axis first: it takes the most, and the smallest, matrix products.
    for axis in (3, 2, 1):
        factor = checked[axis - 1]
        if factor > 1:
            shape = dims(outputs)
            matrix = linear_matrix(shape[axis], factor, align_corners, outputs.dtype)
            slabs = tf.reshape(outputs, [-1, shape[axis], product(shape[axis + 1 :])])
            shape[axis] = shape[axis] * factor
            outputs = tf.reshape(tf.matmul(matrix, slabs), shape)
    return tf.cast(outputs, inputs.dtype)


def linear_matrix(
    old: int | tf.Tensor, factor: int, align_corners: bool, dtype: tf.DType
) -> tf.Tensor:
    """Returns the (old * factor, old) matrix that interpolates along one axis."""
    size = tf.cast(old, tf.float64)
    index = tf.range(size * factor, dtype=tf.float64)
    if align_corners:
        positions = index * (size - 1) / tf.maximum(size * factor - 1, 1)
    else:
        positions = resized_positions(index, new=size * factor, old=size)
    inside = tf.clip_by_value(positions, 0, size - 1)
    distances = tf.abs(inside[:, tf.newaxis] - tf.range(size, dtype=tf.float64))
    return tf.cast(tf.maximum(1 - distances, 0), dtype)
