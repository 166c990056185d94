"""Instance normalization, fused with residual addition and activation."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from u2net_tf.networks.ops.custom_gradients import custom_gradient
from u2net_tf.networks.ops.implementations import IMPLEMENTATIONS, check_implementation
from u2net_tf.networks.ops.shapes import check_rank_5


def instance_norm(
    inputs: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    residual: tf.Tensor | None = None,
    *,
    epsilon: float = 1e-5,
    negative_slope: float | None = None,
    implementation: str | None = None,
) -> tf.Tensor:
    """Normalizes each channel of each sample over D, H, W; adds a residual; activates.

    Only the inputs are kept for the backward pass, not intermediate results.

    Args:
      inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
      scale: Tensor of shape (C,), gamma.
      offset: Tensor of shape (C,), beta.
      residual: Tensor like `inputs`, added before the activation, or None.
      epsilon: Added to the (biased) variance.
      negative_slope: Slope of the LeakyReLU below zero; None for no activation.
      implementation: One of `IMPLEMENTATIONS`; the current one (see
        `use_implementation`) if None.

    Returns:
      A tensor of the shape and dtype of `inputs`. Statistics are computed in float32,
      or in float64 for float64 inputs. Second derivatives raise an error.

    Raises:
      ValueError: If `inputs` is not of rank 5, `scale`, `offset` or `residual` has the
        wrong shape, or `implementation` is unknown.

    Reference:
      Ulyanov et al., Instance Normalization, arXiv:1607.08022.
    """
    inputs = tf.convert_to_tensor(inputs)
    scale, offset = tf.convert_to_tensor(scale), tf.convert_to_tensor(offset)
    check_rank_5(inputs)
    if scale.shape != inputs.shape[-1:] or offset.shape != inputs.shape[-1:]:
        raise ValueError(
            "`scale` and `offset` must have one value per channel of `inputs`. "
            f"Received: scale.shape={scale.shape}, offset.shape={offset.shape}, "
            f"inputs.shape={inputs.shape}"
        )
    residuals = []
    if residual is not None:
        residuals = [tf.convert_to_tensor(residual)]
        if not residuals[0].shape.is_compatible_with(inputs.shape):
            raise ValueError(
                "`residual` must have the shape of `inputs`. Received: "
                f"residual.shape={residuals[0].shape}, inputs.shape={inputs.shape}"
            )
    operations = IMPLEMENTATIONS[check_implementation(implementation)]

    @custom_gradient
    def normalize(
        inputs: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, *residuals: tf.Tensor
    ) -> tuple[tf.Tensor, Callable]:
        return operations.instance_norm(
            inputs, scale, offset, residuals, epsilon, negative_slope
        )

    return normalize(inputs, scale, offset, *residuals)
