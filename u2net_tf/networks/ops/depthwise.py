"""Depthwise convolution, optionally preceded by up-sampling.

TensorFlow cannot train a grouped Conv3D on a CPU, and its automatic differentiation
does not find that the input gradient is the same operation with the kernel flipped.
Both gradients are therefore defined explicitly. `tools/bench/depthwise.py` measures the
implementations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.biases import sum_over_voxels
from u2net_tf.networks.ops.custom_gradients import custom_gradient
from u2net_tf.networks.ops.implementations import IMPLEMENTATIONS, check_implementation
from u2net_tf.networks.ops.shapes import check_factors, check_rank_5


def depthwise_conv3d(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor | None = None,
    *,
    upsample: Sequence[int] = (1, 1, 1),
    implementation: str | None = None,
) -> tf.Tensor:
    """Convolves every channel with its own kernel, stride 1, 'SAME' padding.

    Args:
      inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
      kernel: Tensor of shape (kd, kh, kw, C), odd kd, kh, kw.
      bias: Tensor of shape (C,), added to the outputs, or None.
      upsample: Three integers of at least 1: factors of nearest-neighbour up-sampling
        of the inputs along D, H, W. With "xla" and "xla_module", large up-sampled
        inputs are materialized for the kernel gradient only, with "triton" never.
      implementation: "xla": multiply-adds of shifted feature maps, which XLA compiles
        into one pass. "plain": a sum of 2D depthwise convolutions, one per depth tap.
        "xla_module": like "xla", for a step that XLA compiles as one module. "triton":
        kernels that Triton compiles, for such a step on a GPU; like "xla_module" for
        float64 and unknown sizes. "export": one grouped convolution for conversion to
        ONNX, which TensorFlow cannot run on a CPU. If None, the current one (see
        `use_implementation`). All but "triton", which also lacks second derivatives,
        compute the kernel gradient by 2D filter gradients.

    Returns:
      A tensor of shape (N, D·fd, H·fh, W·fw, C), of the dtype of `inputs`.

    Raises:
      ValueError: If a rank, the channels or the parity of the kernel, `upsample` or
        `implementation` is invalid.

    Reference:
      3D U²-Net, section 2 (domain adapter); a cross-correlation, as everywhere
      in deep learning.
    """
    inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    check_rank_5(inputs)
    _check_kernel(inputs, kernel)
    biases = [] if bias is None else [tf.convert_to_tensor(bias)]
    if biases and biases[0].shape != kernel.shape[-1:]:
        raise ValueError(
            "`bias` must have one value per channel. Received: "
            f"bias.shape={biases[0].shape}, kernel.shape={kernel.shape}"
        )
    factors = check_factors("upsample", upsample)
    implementation = check_implementation(implementation)
    operations = IMPLEMENTATIONS[implementation]

    @custom_gradient
    def convolve(
        inputs: tf.Tensor, kernel: tf.Tensor, *biases: tf.Tensor
    ) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (
                operations.depthwise_input_gradient(inputs, upstream, kernel, factors),
                operations.depthwise_kernel_gradient(inputs, upstream, kernel, factors),
                *(sum_over_voxels(upstream) for _ in biases),
            )

        bias = biases[0] if biases else None
        return operations.depthwise_conv3d(inputs, kernel, bias, factors), gradient

    return convolve(inputs, kernel, *biases)


def _check_kernel(inputs: tf.Tensor, kernel: tf.Tensor) -> None:
    if (
        kernel.shape.rank != 4
        or kernel.shape[-1] != inputs.shape[-1]
        or any(size % 2 == 0 for size in kernel.shape[:3])
    ):
        raise ValueError(
            "`kernel` must have the shape (kd, kh, kw, C), kd, kh, kw odd and C the "
            f"channels of `inputs`. Received: kernel.shape={kernel.shape}, "
            f"inputs.shape={inputs.shape}"
        )
