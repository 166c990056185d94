"""Max pooling."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.networks.ops.implementations import IMPLEMENTATIONS, check_implementation
from u2net_tf.networks.ops.shapes import check_factors, check_rank_5


def max_pool(
    inputs: tf.Tensor, factors: Sequence[int], *, implementation: str | None = None
) -> tf.Tensor:
    """Max-pools non-overlapping blocks of voxels.

    Among equal voxels, the first along each axis in turn gets the gradient.

    Args:
      inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
      factors: Three integers of at least 1, the block sizes along D, H, W; the size of
        each axis must be divisible by its factor.
      implementation: One of `IMPLEMENTATIONS`; the current one (see
        `use_implementation`) if None.

    Returns:
      A tensor of shape (N, D/fd, H/fh, W/fw, C).

    Raises:
      ValueError: If `inputs` is not of rank 5, `factors` are not three such integers or
        `implementation` is unknown.
    """
    inputs = tf.convert_to_tensor(inputs)
    check_rank_5(inputs)
    checked = check_factors("factors", factors)
    operations = IMPLEMENTATIONS[check_implementation(implementation)]
    return operations.max_pool(inputs, checked)
