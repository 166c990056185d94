"""Instance normalization, with what usually follows it in the same passes."""

import tensorflow as tf

from u2net_tf.networks.ops.implementations import (
    check_route,
    differentiable_once,
    exact_dtype,
    island,
)
from u2net_tf.networks.ops.shapes import check_rank_5, dims

# Depth slices that are added up while they are being computed.
_MOST_SLICES = 4


def instance_norm(
    inputs,
    scale,
    offset,
    residual=None,
    *,
    epsilon=1e-5,
    negative_slope=None,
    route=None,
):
    """Normalizes each channel of each sample over D, H, W; adds, activates.

    Only the inputs are kept for the backward pass, not what is between the steps.

    Args:
        inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
        scale: Tensor of shape (C,), gamma.
        offset: Tensor of shape (C,), beta.
        residual: Tensor like `inputs`, added before the activation; None for none.
        epsilon: Added to the (biased) variance.
        negative_slope: Slope of the LeakyReLU below zero; None for no activation.
        route: One of `ROUTES`; the current one if None.

    Returns:
        A tensor of the shape and dtype of `inputs`. Statistics are taken in float32,
        or in float64 for float64 inputs. There is no second derivative.

    Raises:
        ValueError: If `inputs` is not of rank 5, or `scale`, `offset` or `residual`
            does not fit, or `route` is not known.

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
    added = []
    if residual is not None:
        added = [tf.convert_to_tensor(residual)]
        if not added[0].shape.is_compatible_with(inputs.shape):
            raise ValueError(
                "`residual` must have the shape of `inputs`. Received: "
                f"residual.shape={added[0].shape}, inputs.shape={inputs.shape}"
            )
    route = check_route(route)

    @tf.custom_gradient
    def normalize(inputs, scale, offset, *added):
        return _instance_norm(
            route, inputs, scale, offset, added, epsilon, negative_slope
        )

    return normalize(inputs, scale, offset, *added)


def _instance_norm(route, inputs, scale, offset, added, epsilon, negative_slope):
    """Returns the outputs and their gradient function."""
    exact = exact_dtype(inputs.dtype)
    # Native: a mean alone is one pass without XLA, too.
    mean = _spatial_mean(tf.cast(inputs, exact))
    num_slices = _num_slices(inputs) if route == "compiled" else 1
    squares = _sums_of_squares(route, inputs, mean, num_slices)
    variance = _spatial_mean(squares) / num_slices
    inverse_deviation = tf.math.rsqrt(variance + epsilon)
    gain = inverse_deviation * tf.cast(scale, exact)
    affine = (mean, gain, tf.cast(offset, exact), negative_slope)
    outputs = _apply(route, inputs, added, *affine)

    def gradient(upstream, inputs, *added):
        sums = _sums_for_gradient(route, upstream, inputs, added, *affine, num_slices)
        upstream_mean, covariance = (_spatial_mean(part) / num_slices for part in sums)
        slope = gain * tf.square(inverse_deviation) * covariance
        gradients = _gradients(
            route, upstream, inputs, added, *affine, upstream_mean, slope
        )
        _, depth, height, width, _ = dims(inputs)
        num_voxels = tf.cast(depth * height * width, exact)
        scale_gradient = covariance * inverse_deviation * num_voxels
        offset_gradient = upstream_mean * num_voxels
        return (
            gradients[0],
            tf.cast(tf.reduce_sum(scale_gradient, [0, 1, 2, 3]), scale.dtype),
            tf.cast(tf.reduce_sum(offset_gradient, [0, 1, 2, 3]), offset.dtype),
            *gradients[1:],
        )

    once = differentiable_once("instance_norm", gradient)
    return outputs, lambda upstream: once(upstream, inputs, *added)


def _num_slices(inputs):
    """Returns how many depth slices to add up at once: a divisor of the depth."""
    depth = inputs.shape[1] or 1
    return max(n for n in range(1, _MOST_SLICES + 1) if depth % n == 0)


@island
def _sums_of_squares(inputs, mean, num_slices):
    wide = tf.cast(inputs, mean.dtype)
    return _add_slices(tf.math.squared_difference(wide, mean), num_slices)


@island
def _apply(inputs, added, mean, gain, offset, negative_slope):
    outputs = _before_activation(inputs, added, mean, gain, offset)
    if negative_slope is not None:
        outputs = tf.where(outputs > 0, outputs, negative_slope * outputs)
    return tf.cast(outputs, inputs.dtype)


@island
def _sums_for_gradient(
    upstream, inputs, added, mean, gain, offset, negative_slope, num_slices
):
    """Sums of the gradient before the activation, and of its product with inputs."""
    upstream = _through_activation(
        upstream, inputs, added, mean, gain, offset, negative_slope
    )
    centred = tf.cast(inputs, mean.dtype) - mean
    return (
        _add_slices(upstream, num_slices),
        _add_slices(upstream * centred, num_slices),
    )


@island
def _gradients(
    upstream, inputs, added, mean, gain, offset, negative_slope, upstream_mean, slope
):
    """Gradients of the inputs and of what was added."""
    upstream = _through_activation(
        upstream, inputs, added, mean, gain, offset, negative_slope
    )
    centred = tf.cast(inputs, mean.dtype) - mean
    inputs_gradient = (upstream - upstream_mean) * gain - centred * slope
    return [
        tf.cast(inputs_gradient, inputs.dtype),
        *(tf.cast(upstream, part.dtype) for part in added),
    ]


def _before_activation(inputs, added, mean, gain, offset):
    outputs = (tf.cast(inputs, mean.dtype) - mean) * gain + offset
    for part in added:
        outputs += tf.cast(part, mean.dtype)
    return outputs


def _through_activation(upstream, inputs, added, mean, gain, offset, negative_slope):
    upstream = tf.cast(upstream, mean.dtype)
    if negative_slope is None:
        return upstream
    outputs = _before_activation(inputs, added, mean, gain, offset)
    return tf.where(outputs > 0, upstream, negative_slope * upstream)


def _add_slices(tensor, num_slices):
    """Adds up groups of depth slices; (N, D, H, W, C) to (N, D/num_slices, H, W, C).

    As a sum of maps and not as a reduction: XLA's reductions on the CPU take several
    times as long, and add up all voxels one after the other.
    """
    if num_slices == 1:
        return tensor
    num, depth, *rest = dims(tensor)
    grouped = tf.reshape(tensor, [num, depth // num_slices, num_slices, *rest])
    slices = tf.unstack(grouped, axis=2)
    while len(slices) > 1:
        left_over = slices[len(slices) // 2 * 2 :]
        pairs = zip(slices[::2], slices[1::2], strict=False)
        slices = [*(one + other for one, other in pairs), *left_over]
    return slices[0]


def _spatial_mean(tensor):
    """Returns the mean over D, H, W, of shape (N, 1, 1, 1, C).

    First over each depth slice, then over the slices: one reduction over all voxels
    adds them up one after the other on the CPU, and is slower and forty times less
    accurate in float32 at 64³.
    """
    slice_means = tf.reduce_mean(tensor, axis=[2, 3], keepdims=True)
    return tf.reduce_mean(slice_means, axis=1, keepdims=True)
