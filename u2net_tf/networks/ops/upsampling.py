"""Nearest-neighbour up-sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.implementations import IMPLEMENTATIONS, check_implementation
from u2net_tf.networks.ops.shapes import check_factors, check_rank_5


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
      ValueError: If `inputs` is not of rank 5, `factors` not three such integers or
        `implementation` not known.
    """
    inputs = tf.convert_to_tensor(inputs)
    check_rank_5(inputs)
    checked = check_factors("factors", factors)
    operations = IMPLEMENTATIONS[check_implementation(implementation)]
    if checked == (1, 1, 1):
        return tf.identity(inputs)

    @tf.custom_gradient
    def upsample(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return operations.repeat(inputs, checked), lambda upstream: pool(upstream)

    @tf.custom_gradient
    def pool(upstream: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return operations.sum_pool(upstream, checked), lambda second: upsample(second)

    return upsample(inputs)
