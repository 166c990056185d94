"""Instance normalization and its gradient, as passes over feature maps.

The implementations differ in how a pass is computed: XLA compiles it into a single pass
over memory, whereas TensorFlow takes one for each elementwise operation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.precision import accumulation_dtype
from u2net_tf.networks.ops.shapes import dims

Gradients = tuple[tf.Tensor, ...]
# Mean, gain and offset of each channel, and the slope of the activation.
Affine = tuple[tf.Tensor, tf.Tensor, tf.Tensor, float | None]


@dataclasses.dataclass(frozen=True)
class Passes:
    """One implementation of the passes of instance normalization.

    Attributes:
      squared_deviations: see the function of this name.
      normalize: see the function of this name.
      gradient_sums: see the function of this name.
      gradients: see the function of this name.
      num_slices: inputs -> number of depth slices that a pass itself sums.
    """

    squared_deviations: Callable
    normalize: Callable
    gradient_sums: Callable
    gradients: Callable
    num_slices: Callable[[tf.Tensor], int]


def instance_norm(
    passes: Passes,
    inputs: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    residuals: Sequence[tf.Tensor],
    epsilon: float,
    negative_slope: float | None,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], Gradients]]:
    """Returns the outputs and their gradient function."""
    sum_dtype = accumulation_dtype(inputs.dtype)
    # A mean is a single pass even without XLA.
    mean = _spatial_mean(tf.cast(inputs, sum_dtype))
    num_slices = passes.num_slices(inputs)
    squares = passes.squared_deviations(inputs, mean, num_slices)
    variance = _spatial_mean(squares) / num_slices
    inverse_deviation = tf.math.rsqrt(variance + epsilon)
    gain = inverse_deviation * tf.cast(scale, sum_dtype)
    affine = (mean, gain, tf.cast(offset, sum_dtype), negative_slope)
    outputs = passes.normalize(inputs, residuals, *affine)

    def gradient(
        upstream: tf.Tensor, inputs: tf.Tensor, *residuals: tf.Tensor
    ) -> Gradients:
        sums = passes.gradient_sums(upstream, inputs, residuals, *affine, num_slices)
        upstream_mean, covariance = (_spatial_mean(part) / num_slices for part in sums)
        slope = gain * tf.square(inverse_deviation) * covariance
        gradients = passes.gradients(
            upstream, inputs, residuals, *affine, upstream_mean, slope
        )
        _, depth, height, width, _ = dims(inputs)
        num_voxels = tf.cast(depth * height * width, sum_dtype)
        scale_gradient = covariance * inverse_deviation * num_voxels
        offset_gradient = upstream_mean * num_voxels
        return (
            gradients[0],
            tf.cast(tf.reduce_sum(scale_gradient, [0, 1, 2, 3]), scale.dtype),
            tf.cast(tf.reduce_sum(offset_gradient, [0, 1, 2, 3]), offset.dtype),
            *gradients[1:],
        )

    once = differentiable_once("instance_norm", gradient)
    return outputs, lambda upstream: once(upstream, inputs, *residuals)


def differentiable_once(
    name: str, function: Callable[..., Gradients]
) -> Callable[..., Gradients]:
    """Returns a gradient function that raises an error when it is differentiated.

    The values that such a function keeps from the forward pass would otherwise be
    treated as constants, and second derivatives would be silently wrong.

    Args:
      name: name of the operation, for the error.
      function: gradient function of tensors.
    """

    @tf.custom_gradient
    def run(*tensors: tf.Tensor) -> tuple[Gradients, Callable]:
        def raise_error(*upstream: tf.Tensor) -> None:
            raise NotImplementedError(f"`{name}` has no second derivative")

        return function(*tensors), raise_error

    return run


def squared_deviations(
    inputs: tf.Tensor, mean: tf.Tensor, num_slices: int
) -> tf.Tensor:
    """Returns squared deviations from the mean, summed over groups of depth slices."""
    wide = tf.cast(inputs, mean.dtype)
    return _add_slices(tf.math.squared_difference(wide, mean), num_slices)


def normalize(
    inputs: tf.Tensor,
    residuals: Sequence[tf.Tensor],
    mean: tf.Tensor,
    gain: tf.Tensor,
    offset: tf.Tensor,
    negative_slope: float | None,
) -> tf.Tensor:
    """Returns the outputs, in the dtype of the inputs."""
    outputs = _before_activation(inputs, residuals, mean, gain, offset)
    if negative_slope is not None:
        outputs = tf.where(outputs > 0, outputs, negative_slope * outputs)
    return tf.cast(outputs, inputs.dtype)


def gradient_sums(
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    residuals: Sequence[tf.Tensor],
    mean: tf.Tensor,
    gain: tf.Tensor,
    offset: tf.Tensor,
    negative_slope: float | None,
    num_slices: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradient before the activation, and its product with centred inputs.

    Both are summed over groups of depth slices.
    """
    upstream = _through_activation(
        upstream, inputs, residuals, (mean, gain, offset, negative_slope)
    )
    centred = tf.cast(inputs, mean.dtype) - mean
    return (
        _add_slices(upstream, num_slices),
        _add_slices(upstream * centred, num_slices),
    )


def gradients(
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    residuals: Sequence[tf.Tensor],
    mean: tf.Tensor,
    gain: tf.Tensor,
    offset: tf.Tensor,
    negative_slope: float | None,
    upstream_mean: tf.Tensor,
    slope: tf.Tensor,
) -> list[tf.Tensor]:
    """Returns the gradients of the inputs and of the residuals."""
    upstream = _through_activation(
        upstream, inputs, residuals, (mean, gain, offset, negative_slope)
    )
    centred = tf.cast(inputs, mean.dtype) - mean
    inputs_gradient = (upstream - upstream_mean) * gain - centred * slope
    return [
        tf.cast(inputs_gradient, inputs.dtype),
        *(tf.cast(upstream, residual.dtype) for residual in residuals),
    ]


def _before_activation(
    inputs: tf.Tensor,
    residuals: Sequence[tf.Tensor],
    mean: tf.Tensor,
    gain: tf.Tensor,
    offset: tf.Tensor,
) -> tf.Tensor:
    outputs = (tf.cast(inputs, mean.dtype) - mean) * gain + offset
    for residual in residuals:
        outputs += tf.cast(residual, mean.dtype)
    return outputs


def _through_activation(
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    residuals: Sequence[tf.Tensor],
    affine: Affine,
) -> tf.Tensor:
    mean, gain, offset, negative_slope = affine
    upstream = tf.cast(upstream, mean.dtype)
    if negative_slope is None:
        return upstream
    outputs = _before_activation(inputs, residuals, mean, gain, offset)
    return tf.where(outputs > 0, upstream, negative_slope * upstream)


def _add_slices(tensor: tf.Tensor, num_slices: int) -> tf.Tensor:
    """Sums groups of depth slices; (N, D, H, W, C) to (N, D/num_slices, H, W, C).

    Adds feature maps instead of calling a reduction: on a CPU, XLA's reductions take
    several times as long and sum all voxels in sequence.
    """
    if num_slices == 1:
        return tensor
    num, depth, *rest = dims(tensor)
    grouped = tf.reshape(tensor, [num, depth // num_slices, num_slices, *rest])
    slices = tf.unstack(grouped, axis=2)
    while len(slices) > 1:
        unpaired = slices[len(slices) // 2 * 2 :]
        pairs = zip(slices[::2], slices[1::2], strict=False)
        slices = [*(one + other for one, other in pairs), *unpaired]
    return slices[0]


def _spatial_mean(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the mean over D, H, W, of shape (N, 1, 1, 1, C).

    Averages each depth slice first and then the slices: on a CPU, one reduction over
    all voxels sums them in sequence, which is slower and, in float32 at 64³, forty
    times less accurate.
    """
    slice_means = tf.reduce_mean(tensor, axis=[2, 3], keepdims=True)
    return tf.reduce_mean(slice_means, axis=1, keepdims=True)
