"""Dense convolution."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.networks.ops.biases import add_bias
from u2net_tf.networks.ops.implementations import IMPLEMENTATIONS, check_implementation
from u2net_tf.networks.ops.shapes import check_rank_5


def conv3d(
    inputs: tf.Tensor | Sequence[tf.Tensor],
    kernel: tf.Tensor,
    bias: tf.Tensor | None = None,
    *,
    strides: Sequence[int] = (1, 1, 1),
    implementation: str | None = None,
) -> tf.Tensor:
    """Convolves with 'SAME' padding.

    Args:
      inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown. Or a list of
        such tensors, which are convolved as if concatenated along C; with a pointwise
        kernel they are not actually concatenated.
      kernel: Tensor of shape (kd, kh, kw, C, F).
      bias: Tensor of shape (F,), added to the outputs, or None.
      strides: Three integers of at least 1, along D, H, W; each at most 1 more than
        the size of the kernel.
      implementation: One of `IMPLEMENTATIONS`; the current one (see
        `use_implementation`) if None.

    Returns:
      A tensor of shape (N, D/sd, H/sh, W/sw, F), sizes rounded up, of the dtype of
      `inputs`.

    Raises:
      ValueError: If `inputs` is not of rank 5, a stride is too large or
        `implementation` is unknown.
    """
    kernel = tf.convert_to_tensor(kernel)
    groups = inputs if isinstance(inputs, list) else [inputs]
    groups = [tf.convert_to_tensor(group) for group in groups]
    for group in groups:
        check_rank_5(group)
    _check_strides(strides, kernel.shape[:3])
    operations = IMPLEMENTATIONS[check_implementation(implementation)]
    outputs = operations.conv3d(groups, kernel, strides)
    return outputs if bias is None else add_bias(outputs, bias)


def _check_strides(strides: Sequence[int], sizes: tf.TensorShape) -> None:
    # Where two or more voxels at the ends would not be read, TensorFlow's float64
    # convolution on a CPU, and its float32 one without oneDNN, do not start at the
    # first voxel as documented.
    pairs = zip(strides, sizes, strict=True)
    if any(size is not None and stride > size + 1 for stride, size in pairs):
        raise ValueError(
            "`strides` must be at most 1 more than the size of the kernel. "
            f"Received: strides={tuple(strides)}, kernel sizes {tuple(sizes)}"
        )
