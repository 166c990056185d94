"""The implementation for export, in forms that compilers of other runtimes recognize.

It uses few operations, each of which converters map to a single one. TensorFlow has no
CPU kernel for its depthwise convolution, so graphs traced with it are only converted
(`u2net_tf.exporting`), never run or differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.shapes import Factors, dims

# Prefix of the name of an up-sampling's last operation; method and factors follow.
UPSAMPLED = "upsampled"


def conv3d(
    groups: Sequence[tf.Tensor], kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """Convolves concatenated channel groups; pointwise kernels need no special case."""
    inputs = tf.concat(groups, axis=-1) if len(groups) > 1 else groups[0]
    return tf.raw_ops.Conv3D(
        input=inputs, filter=kernel, strides=[1, *strides, 1], padding="SAME"
    )


def depthwise_conv3d(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factors: Factors
) -> tf.Tensor:
    """Convolves the up-sampled inputs with one grouped convolution."""
    if max(factors) > 1:
        inputs = repeat(inputs, factors)
    # A kernel with one input channel has one group per channel of the inputs.
    outputs = conv3d([inputs], kernel[:, :, :, tf.newaxis], (1, 1, 1))
    return outputs if bias is None else tf.nn.bias_add(outputs, bias)


def instance_norm(
    inputs: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    residuals: Sequence[tf.Tensor],
    epsilon: float,
    negative_slope: float | None,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
    """Returns the outputs, and a gradient function that raises an error."""
    scale, offset = (tf.cast(tensor, inputs.dtype) for tensor in (scale, offset))
    mean = tf.reduce_mean(inputs, axis=[1, 2, 3], keepdims=True)
    deviations = inputs - mean
    # No `rsqrt` or `squared_difference`, which OpenVINO does not fuse into a norm.
    variance = tf.reduce_mean(deviations * deviations, axis=[1, 2, 3], keepdims=True)
    outputs = deviations / tf.sqrt(variance + epsilon) * scale + offset
    for residual in residuals:
        outputs = outputs + residual
    if negative_slope is not None:
        outputs = tf.nn.leaky_relu(outputs, negative_slope)
    return outputs, no_gradient


def no_gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Raises NotImplementedError: exported graphs are not trained."""
    raise NotImplementedError("the implementation 'export' has no gradients")


def max_pool(inputs: tf.Tensor, factors: Factors) -> tf.Tensor:
    """Max-pools blocks of voxels."""
    window = [1, *factors, 1]
    return tf.nn.max_pool3d(inputs, ksize=window, strides=window, padding="VALID")


def repeat(inputs: tf.Tensor, factors: Factors) -> tf.Tensor:
    """Repeats every voxel along D, H, W."""

    def resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.ResizeNearestNeighbor(
            images=images, size=size, half_pixel_centers=True
        )

    return _resize(inputs, factors, "nearest", resize)


def upsample_linear(
    inputs: tf.Tensor, factors: Factors, align_corners: bool
) -> tf.Tensor:
    """Interpolates linearly between voxels along D, H, W."""

    def resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.ResizeBilinear(
            images=images,
            size=size,
            align_corners=align_corners,
            half_pixel_centers=not align_corners,
        )

    return _resize(inputs, factors, "corners" if align_corners else "linear", resize)


def _resize(
    inputs: tf.Tensor,
    factors: Factors,
    method: str,
    resize: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Resizes H and W, then D, as images: TensorFlow resizes two dimensions at most."""
    num, depth, height, width, channels = dims(inputs)
    by_depth, by_height, by_width = factors
    outputs = inputs
    if max(by_height, by_width) > 1:
        outputs = tf.reshape(outputs, [num * depth, height, width, channels])
        height, width = height * by_height, width * by_width
        outputs = resize(outputs, tf.stack([height, width]))
    if by_depth > 1:
        outputs = tf.reshape(outputs, [num, depth, height * width, channels])
        depth = depth * by_depth
        outputs = resize(outputs, tf.stack([depth, height * width]))
    name = "_".join([UPSAMPLED, method, *map(str, factors)])
    return tf.reshape(outputs, [num, depth, height, width, channels], name=name)
