"""The implementation for a step that XLA compiles as one module, for a GPU.

XLA then compiles every operation, and cuDNN computes the convolutions. Some kernel
gradients are built from other operations, because cuDNN is slow at them. Pointwise
convolutions are matrix products with channels first, and barriers prevent fusions that
make a step slower (docs/performance.md, "On a GPU").

All functions can also be called outside of such a module: XLA then compiles each
barrier on its own, as a mere copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla as xla_ops

from u2net_tf.networks.ops.implementations import plain, xla
from u2net_tf.networks.ops.shapes import Factors, dims

KernelGradient: TypeAlias = Callable[
    [tf.Tensor, tf.Tensor, tf.TensorShape, Sequence[int]], tf.Tensor
]
InputGradient: TypeAlias = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor, Sequence[int]], tf.Tensor
]
# Up to this many input channels, a depthwise kernel gradient per channel is computed.
_MAX_DEPTHWISE_CHANNELS = 4


# The operation has no kernel outside of XLA.
@xla.xla_compiled
def barrier(*tensors: tf.Tensor) -> list[tf.Tensor]:
    """Returns the tensors, none of which XLA can use before all are computed.

    XLA does not fuse operations across it, nor replace its results by its arguments.
    """

    @tf.custom_gradient
    def run(*tensors: tf.Tensor) -> tuple[list[tf.Tensor], Callable]:
        def gradient(*upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return upstream

        return xla_ops.optimization_barrier(*tensors), gradient

    return run(*tensors)


def wait_for(upstream: tf.Tensor, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the tensors, which XLA cannot use before `upstream` is computed."""
    return barrier(upstream, *tensors)[1:]


def invert_permutation(permutation: tf.Tensor) -> tf.Tensor:
    """Returns the inverse permutation, by scattering the indices.

    TensorFlow's own operation first tests whether the permutation is constant, which
    fails for some networks ("Dynamic reshape is not implemented").
    """
    size = tf.size(permutation)
    return tf.scatter_nd(permutation[:, tf.newaxis], tf.range(size), size[tf.newaxis])


def depthwise_conv3d(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factors: Factors
) -> tf.Tensor:
    """Calls `xla.depthwise_conv3d`, not fused with what precedes and follows it."""
    # XLA recomputed the preceding activation for every tap. It fused two convolutions
    # with the reductions of the following norm, each of which then recomputed both: 19
    # of 69 ms of a step in bfloat16.
    (inputs,) = barrier(inputs)
    return barrier(xla.depthwise_conv3d(inputs, kernel, bias, factors))[0]


def depthwise_input_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Calls `xla.depthwise_input_gradient`, not fused with what surrounds it."""
    (upstream,) = barrier(upstream)
    gradient = xla.depthwise_input_gradient(inputs, upstream, kernel, factors)
    return barrier(gradient)[0]


def depthwise_kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Computes the kernel gradient by one 2D filter gradient per depth tap.

    cuDNN needs a transposed copy of each argument. Unlike in the plain implementation,
    the gradient of the outputs is the same for all taps, so that it is copied once.
    """
    if plain.sums_in_float16(inputs.dtype):
        return xla.depthwise_kernel_gradient(inputs, upstream, kernel, factors)
    if max(factors) > 1:
        inputs = xla.repeat(inputs, factors)
    radius = kernel.shape[0] // 2
    _, depth, *plane = dims(inputs)
    padded = tf.pad(inputs, [[0, 0], [radius, radius], [0, 0], [0, 0], [0, 0]])
    rows = tf.reshape(upstream, [-1, *plane])
    taps = [
        plain.filter_gradient(
            tf.reshape(padded[:, tap : tap + depth], [-1, *plane]), rows, kernel
        )
        for tap in range(kernel.shape[0])
    ]
    return tf.reshape(tf.stack(taps), kernel.shape)


def instance_norm(
    inputs: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    residuals: Sequence[tf.Tensor],
    epsilon: float,
    negative_slope: float | None,
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
    """Calls `plain.instance_norm`, whose gradient is not fused with what surrounds it.

    Otherwise, XLA keeps the gradient of a half-precision map in float32, as it is
    inside a fusion.
    """
    outputs, gradient = plain.instance_norm(
        inputs, scale, offset, residuals, epsilon, negative_slope
    )

    def run(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        (upstream,) = barrier(upstream)
        return tuple(barrier(*gradient(upstream)))

    return outputs, run


def conv3d(
    groups: Sequence[tf.Tensor], kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """Calls `plain.conv3d`, except for three kinds of kernels.

    Pointwise kernels are applied by matrix products with channels first. Kernels with
    few input channels, such as the stem's, and strided ones have other kernel
    gradients.
    """
    channels, sizes = groups[0].shape[-1], kernel.shape[:3]
    is_strided = max(strides) > 1
    if plain.is_pointwise(kernel, strides):
        return plain.sum_of_products(groups, kernel, multiply=_pointwise)
    if len(groups) > 1:
        return plain.conv3d(groups, kernel, strides)
    if is_strided and None not in groups[0].shape[1:4]:
        kernel_gradient: KernelGradient = gradient_by_matrix_products
    elif not is_strided and _is_narrow(channels, sizes):
        kernel_gradient = _gradient_by_depthwise
    else:
        return plain.conv3d(groups, kernel, strides)
    return convolve_with(kernel_gradient, input_gradient, groups[0], kernel, strides)


def _pointwise(inputs: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Convolves by a matrix product of maps whose channels come first.

    XLA keeps the maps in this order for the sums of norms. A product with channels last
    made it keep some maps in both orders.
    """
    *outer, channels = dims(inputs)
    columns = tf.reshape(inputs, [outer[0], -1, channels])
    products = tf.matmul(matrix, columns, transpose_a=True, transpose_b=True)
    rows = tf.transpose(products, [0, 2, 1])
    return tf.reshape(rows, [*outer, matrix.shape[-1]])


def _is_narrow(channels: int, sizes: Sequence[int]) -> bool:
    """Returns whether a kernel gradient per input channel is possible and faster."""
    return channels <= _MAX_DEPTHWISE_CHANNELS and all(size % 2 for size in sizes)


def convolve_with(
    kernel_gradient: KernelGradient,
    input_gradient: InputGradient,
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    strides: Sequence[int],
) -> tf.Tensor:
    """Convolves; the gradients are computed by given functions.

    Args:
      kernel_gradient: inputs, gradient of the outputs, shape of the kernel, strides ->
        gradient of the kernel.
      input_gradient: inputs, gradient of the outputs, kernel, strides -> gradient of
        the inputs.
      inputs: (N, D, H, W, C).
      kernel: (kd, kh, kw, C, F).
      strides: along D, H, W.
    """

    @tf.custom_gradient
    def convolve(
        inputs: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                input_gradient(inputs, upstream, kernel, strides),
                kernel_gradient(inputs, upstream, kernel.shape, strides),
            )

        options = {"strides": [1, *strides, 1], "padding": "SAME"}
        return tf.nn.conv3d(inputs, kernel, **options), gradient

    return convolve(inputs, kernel)


def input_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """Computes the input gradient of a convolution by TensorFlow's operation."""
    return tf.raw_ops.Conv3DBackpropInputV2(
        input_sizes=tf.shape(inputs),
        filter=kernel,
        out_backprop=upstream,
        strides=[1, *strides, 1],
        padding="SAME",
    )


def _gradient_by_depthwise(
    inputs: tf.Tensor,
    upstream: tf.Tensor,
    kernel_shape: tf.TensorShape,
    strides: Sequence[int],
) -> tf.Tensor:
    """Computes one depthwise kernel gradient per input channel.

    For a single input channel, the filters act like a depthwise kernel on that channel
    repeated once per filter.
    """
    del strides  # all 1
    *sizes, _, filters = kernel_shape
    depthwise_kernel = tf.zeros([*sizes, filters], inputs.dtype)
    parts = [
        plain.depthwise_kernel_gradient(
            tf.broadcast_to(channel[..., tf.newaxis], tf.shape(upstream)),
            upstream,
            depthwise_kernel,
            (1, 1, 1),
        )
        for channel in tf.unstack(inputs, axis=-1)
    ]
    return tf.stack(parts, axis=3)


def _product_of_rows(maps: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    rows = [tf.reshape(each, [-1, each.shape[-1]]) for each in (maps, others)]
    return tf.matmul(*rows, transpose_a=True)


def gradient_by_matrix_products(
    inputs: tf.Tensor,
    upstream: tf.Tensor,
    kernel_shape: tf.TensorShape,
    strides: Sequence[int],
    multiply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = _product_of_rows,
) -> tf.Tensor:
    """Computes one matrix product per tap, of the voxels it sees and `upstream`.

    Args:
      inputs: (N, D, H, W, C).
      upstream: gradient of the outputs (N, D/sd, H/sh, W/sw, F), sizes rounded up.
      kernel_shape: (kd, kh, kw, C, F).
      strides: along D, H, W.
      multiply: maps (N, d, h, w, C), (N, d, h, w, F) -> sum over voxels of the outer
        products of their channels.
    """
    *sizes, _, _ = kernel_shape
    extents, paddings = [], []
    for size, kernel_size, stride in zip(
        inputs.shape[1:4], sizes, strides, strict=True
    ):
        num_outputs = -(-size // stride)
        reach = (num_outputs - 1) * stride + kernel_size
        missing = max(reach - size, 0)
        paddings.append([missing // 2, missing - missing // 2])
        extents.append((num_outputs - 1) * stride + 1)
    padded = tf.pad(inputs, [[0, 0], *paddings, [0, 0]])
    products = []
    for tap in itertools.product(*map(range, sizes)):
        window = [slice(None)]
        for first, extent, stride in zip(tap, extents, strides, strict=True):
            window.append(slice(first, first + extent, stride))
        products.append(multiply(padded[tuple(window)], upstream))
    return tf.reshape(tf.stack(products), kernel_shape)
