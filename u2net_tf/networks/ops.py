"""Stateless maths of the networks: tensors in, tensors out, no variables."""

from collections.abc import Sequence

import tensorflow as tf


def _dims(tensor):
    """Returns the shape as a list: integers where known, scalars elsewhere."""
    sizes = tensor.shape.as_list()
    if None not in sizes:
        return sizes
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(sizes)]


def _check_rank_5(inputs):
    if inputs.shape.rank != 5:
        raise ValueError(
            "`inputs` must have the axes (N, D, H, W, C). "
            f"Received: inputs.shape={inputs.shape}"
        )


def conv3d(inputs, kernel, *, strides=(1, 1, 1)):
    """Convolves with 'SAME' padding.

    Args:
        inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
        kernel: Tensor of shape (kd, kh, kw, C, F).
        strides: Three integers of at least 1, along D, H, W.

    Returns:
        A tensor of shape (N, D/sd, H/sh, W/sw, F), rounded up, and of the dtype of
        `inputs`.

    Raises:
        ValueError: If `inputs` is not of rank 5.
    """
    inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    _check_rank_5(inputs)
    # TensorFlow 2.21 on a CPU with AVX512_BF16 reads memory that nobody wrote in the
    # bfloat16 gradient of such a kernel over a map that is 2 deep.
    faulty = kernel.shape[0] > 1 and inputs.shape[1] in (2, None)
    if inputs.dtype == tf.bfloat16 and faulty:
        wide = conv3d(
            tf.cast(inputs, tf.float32), tf.cast(kernel, tf.float32), strides=strides
        )
        return tf.cast(wide, inputs.dtype)
    return tf.nn.conv3d(inputs, kernel, strides=[1, *strides, 1], padding="SAME")


def depthwise_conv3d(inputs, kernel):
    """Convolves every channel with its own kernel, stride 1, 'SAME' padding.

    TensorFlow has no grouped Conv3D on the CPU that trains, and its autodiff does
    not know that the gradient of the input is the same operation with the kernel
    turned round. So the forward is a sum of 2D depthwise convolutions, one for
    each depth tap, and both gradients are written out.

    Args:
        inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
        kernel: Tensor of shape (kd, kh, kw, C), odd kd, kh, kw.

    Returns:
        A tensor of the shape and dtype of `inputs`.

    Raises:
        ValueError: If a rank, the channels or the parity of the kernel is wrong.

    Reference:
        3D U²-Net, section 2 (domain adapter); a cross-correlation, as everywhere
        in deep learning.
    """
    inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    _check_rank_5(inputs)
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
    return _depthwise_conv3d(inputs, kernel)


@tf.custom_gradient
def _depthwise_conv3d(inputs, kernel):
    def gradient(upstream):
        rows = _depth_rows(upstream, kernel.shape[0] // 2)
        turned = tf.reverse(kernel, axis=[0, 1, 2])
        return (
            _convolve_rows(rows, turned, _dims(upstream)),
            _kernel_gradient(inputs, rows, kernel),
        )

    rows = _depth_rows(inputs, kernel.shape[0] // 2)
    return _convolve_rows(rows, kernel, _dims(inputs)), gradient


def _depth_rows(tensor, radius):
    """Pads the depth with `radius` zeros and folds it into the batch.

    A depth tap is then a slice of the leading axis, which TensorFlow takes without
    copying, and the zeros between two samples keep them apart.
    """
    padded = tf.pad(tensor, [[0, 0], [radius, radius], [0, 0], [0, 0], [0, 0]])
    num, depth, height, width, channels = _dims(padded)
    return tf.reshape(padded, [num * depth, height, width, channels])


def _slice_rows(rows, start, num_rows):
    return tf.slice(rows, [start, 0, 0, 0], [num_rows, -1, -1, -1])


def _convolve_rows(rows, kernel, shape):
    """Returns the convolution, of `shape`, of what `_depth_rows` made."""
    num, depth, height, width, channels = shape
    radius = kernel.shape[0] // 2
    num_outputs = num * (depth + 2 * radius) - 2 * radius
    outputs = tf.add_n(
        [
            tf.raw_ops.DepthwiseConv2dNative(
                input=_slice_rows(rows, tap, num_outputs),
                filter=kernel_2d,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            for tap, kernel_2d in enumerate(tf.unstack(kernel[..., tf.newaxis]))
        ]
    )
    if not isinstance(num, int) or num > 1:
        # Between two samples stand 2 * radius rows that mix both: leave them out.
        outputs = tf.pad(outputs, [[0, 2 * radius], [0, 0], [0, 0], [0, 0]])
        outputs = tf.reshape(
            outputs, [num, depth + 2 * radius, height, width, channels]
        )[:, :depth]
    return tf.reshape(outputs, shape)


def _kernel_gradient(inputs, upstream_rows, kernel):
    """Returns the gradient of the kernel, one 2D filter gradient per depth tap."""
    kd, kh, kw, channels = kernel.shape
    radius = kd // 2
    input_rows = _depth_rows(inputs, radius)
    num_outputs = _dims(input_rows)[0] - 2 * radius
    # The padding of the upstream gradient silences the rows between two samples.
    upstream = _slice_rows(upstream_rows, radius, num_outputs)
    taps = [
        tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=_slice_rows(input_rows, tap, num_outputs),
            filter_sizes=[kh, kw, channels, 1],
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="SAME",
        )
        for tap in range(kd)
    ]
    return tf.reshape(tf.stack(taps), [kd, kh, kw, channels])


def instance_norm(inputs, scale, offset, *, epsilon=1e-5, negative_slope=None):
    """Normalizes each channel of each sample over D, H, W; optionally LeakyReLU.

    The activation may be folded in because only `inputs` and the activated result
    are then kept for the backward pass, not the map between them.

    Args:
        inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
        scale: Tensor of shape (C,), gamma.
        offset: Tensor of shape (C,), beta.
        epsilon: Added to the (biased) variance.
        negative_slope: Slope of the LeakyReLU below zero; None for no activation.

    Returns:
        A tensor of the shape and dtype of `inputs`. Statistics are taken in float32,
        or in float64 for float64 inputs.

    Raises:
        ValueError: If `inputs` is not of rank 5, or `scale` or `offset` does not fit.

    Reference:
        Ulyanov et al., Instance Normalization, arXiv:1607.08022.
    """
    inputs = tf.convert_to_tensor(inputs)
    scale, offset = tf.convert_to_tensor(scale), tf.convert_to_tensor(offset)
    _check_rank_5(inputs)
    if scale.shape != inputs.shape[-1:] or offset.shape != inputs.shape[-1:]:
        raise ValueError(
            "`scale` and `offset` must have one value per channel of `inputs`. "
            f"Received: scale.shape={scale.shape}, offset.shape={offset.shape}, "
            f"inputs.shape={inputs.shape}"
        )

    @tf.custom_gradient
    def normalize(inputs, scale, offset):
        return _instance_norm(inputs, scale, offset, epsilon, negative_slope)

    return normalize(inputs, scale, offset)


def _instance_norm(inputs, scale, offset, epsilon, negative_slope):
    """Returns the normalized tensor and its gradient function."""
    exact = tf.float64 if inputs.dtype == tf.float64 else tf.float32
    wide = tf.cast(inputs, exact)
    mean = _spatial_mean(wide)
    variance = _spatial_mean(tf.math.squared_difference(wide, mean))
    inverse_deviation = tf.math.rsqrt(variance + epsilon)
    gain = inverse_deviation * tf.cast(scale, exact)
    outputs = wide * gain + (tf.cast(offset, exact) - mean * gain)
    if negative_slope is not None:
        outputs = tf.nn.leaky_relu(outputs, negative_slope)
    outputs = tf.cast(outputs, inputs.dtype)

    def gradient(upstream):
        if negative_slope is not None:
            # The activated result has the sign of what was activated.
            upstream = tf.raw_ops.LeakyReluGrad(
                gradients=upstream, features=outputs, alpha=negative_slope
            )
        upstream = tf.cast(upstream, exact)
        wide = tf.cast(inputs, exact)
        upstream_mean = _spatial_mean(upstream)
        covariance = _spatial_mean(upstream * wide) - mean * upstream_mean
        slope = gain * tf.square(inverse_deviation) * covariance
        constant = slope * mean - gain * upstream_mean
        inputs_gradient = upstream * gain - wide * slope + constant
        _, depth, height, width, _ = _dims(inputs)
        num_voxels = tf.cast(depth * height * width, exact)
        scale_gradient = covariance * inverse_deviation * num_voxels
        offset_gradient = upstream_mean * num_voxels
        return (
            tf.cast(inputs_gradient, inputs.dtype),
            tf.cast(tf.reduce_sum(scale_gradient, [0, 1, 2, 3]), scale.dtype),
            tf.cast(tf.reduce_sum(offset_gradient, [0, 1, 2, 3]), offset.dtype),
        )

    return outputs, gradient


def _spatial_mean(tensor):
    """Returns the mean over D, H, W, of shape (N, 1, 1, 1, C).

    First over each depth slice, then over the slices: one reduction over all voxels
    adds them up one after the other on the CPU, and is slower and forty times less
    accurate in float32 at 64³.
    """
    slice_means = tf.reduce_mean(tensor, axis=[2, 3], keepdims=True)
    return tf.reduce_mean(slice_means, axis=1, keepdims=True)


def upsample_nearest(inputs, factors: Sequence[int]):
    """Repeats every voxel `factors` times along D, H, W.

    One axis at a time, as a broadcast over three dimensions: `tf.broadcast_to` stops
    at a handful of dimensions on the CPU, and the gradient of a broadcast is a sum,
    that of a gather would be a scatter.

    Args:
        inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
        factors: Three integers of at least 1, along D, H, W.

    Returns:
        A tensor of shape (N, D·fd, H·fh, W·fw, C).

    Raises:
        ValueError: If `inputs` is not of rank 5 or `factors` not three such integers.
    """
    inputs = tf.convert_to_tensor(inputs)
    _check_rank_5(inputs)
    if len(factors) != 3 or any(
        int(factor) != factor or factor < 1 for factor in factors
    ):
        raise ValueError(
            "`factors` must be three integers of at least 1. "
            f"Received: factors={factors}"
        )
    # The innermost axis first: the later, larger copies then move longer runs.
    for axis in (3, 2, 1):
        factor = int(factors[axis - 1])
        if factor > 1:
            inputs = _repeat_axis(inputs, axis, factor)
    return inputs


def _repeat_axis(tensor, axis, factor):
    shape = _dims(tensor)
    outer, inner = 1, 1
    for size in shape[: axis + 1]:
        outer = outer * size
    for size in shape[axis + 1 :]:
        inner = inner * size
    repeated = tf.broadcast_to(
        tf.reshape(tensor, [outer, 1, inner]), [outer, factor, inner]
    )
    shape[axis] = shape[axis] * factor
    return tf.reshape(repeated, shape)
