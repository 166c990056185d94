"""The implementation for a step that XLA compiles as one module, for a GPU.

There XLA takes every operation, convolutions too, and cuDNN computes those. Two kernel
gradients are made of other operations, because cuDNN has nothing fast for them, and
barriers keep XLA from joining what is slower joined. Not measured on a GPU yet.

Everything here can be called outside of such a module as well: there XLA compiles each
barrier alone, which does nothing but copy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla as xla_ops

from u2net_tf.networks.ops.implementations import plain, xla
from u2net_tf.networks.ops.shapes import Factors

# Up to so many input channels, the kernel gradient is one depthwise one per channel.
_MAX_FEW_CHANNELS = 4


# The operation has no kernel outside of XLA.
@xla.xla_compiled
def barrier(*tensors: tf.Tensor) -> list[tf.Tensor]:
    """Returns the tensors, each of which XLA has only when it has all of them.

    XLA neither joins what is computed before with what is computed after it, nor finds
    that a result is one of the arguments.
    """

    @tf.custom_gradient
    def run(*tensors: tf.Tensor) -> tuple[list[tf.Tensor], Callable]:
        def gradient(*upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return upstream

        return xla_ops.optimization_barrier(*tensors), gradient

    return run(*tensors)


def wait_for(upstream: tf.Tensor, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the tensors anew, which XLA does not have before `upstream`."""
    return barrier(upstream, *tensors)[1:]


def invert_permutation(permutation: tf.Tensor) -> tf.Tensor:
    """Scatters the places.

    TensorFlow's own operation first tries whether the permutation is a constant, which
    fails for some networks ("Dynamic reshape is not implemented").
    """
    num_places = tf.size(permutation)
    return tf.scatter_nd(
        permutation[:, tf.newaxis], tf.range(num_places), num_places[tf.newaxis]
    )


def depthwise_conv3d(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factors: Factors
) -> tf.Tensor:
    """As of `xla`, not joined with what reads the outputs."""
    # XLA joined two of them with the sums of the norm behind, each of which then
    # computes both again: 19 of 69 ms of a step in bfloat16.
    return barrier(xla.depthwise_conv3d(inputs, kernel, bias, factors))[0]


def depthwise_input_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """As of `xla`, not joined with what reads the gradient."""
    gradient = xla.depthwise_input_gradient(inputs, upstream, kernel, factors)
    return barrier(gradient)[0]


def conv3d(
    groups: Sequence[tf.Tensor], kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """As of `plain`, with kernel gradients of its own for two kinds of kernels.

    They are those of few input channels, such as the stem's, and of strides.
    """
    channels, sizes = groups[0].shape[-1], kernel.shape[:3]
    is_pointwise = math.prod(sizes) == 1
    is_strided = max(strides) > 1
    if len(groups) > 1 or (is_pointwise and not is_strided):
        return plain.conv3d(groups, kernel, strides)
    if is_strided and None not in groups[0].shape[1:4]:
        kernel_gradient = _gradient_by_matrix_products
    elif not is_strided and _is_narrow(channels, sizes):
        kernel_gradient = _gradient_by_depthwise
    else:
        return plain.conv3d(groups, kernel, strides)
    return _with_kernel_gradient(kernel_gradient, groups[0], kernel, strides)


def _is_narrow(channels: int, sizes: Sequence[int]) -> bool:
    """Whether a depthwise kernel gradient per input channel is worth it, and exists."""
    return channels <= _MAX_FEW_CHANNELS and all(size % 2 for size in sizes)


def _with_kernel_gradient(
    kernel_gradient: Callable[..., tf.Tensor],
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    strides: Sequence[int],
) -> tf.Tensor:
    """The convolution, whose kernel gradient this function computes.

    Args:
      kernel_gradient: inputs, gradient of the outputs, shape of the kernel, strides ->
        gradient of the kernel.
      inputs: (N, D, H, W, C).
      kernel: (kd, kh, kw, C, F).
      strides: along D, H, W.
    """
    options = {"strides": [1, *strides, 1], "padding": "SAME"}

    @tf.custom_gradient
    def convolve(
        inputs: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            input_gradient = tf.raw_ops.Conv3DBackpropInputV2(
                input_sizes=tf.shape(inputs),
                filter=kernel,
                out_backprop=upstream,
                **options,
            )
            return input_gradient, kernel_gradient(
                inputs, upstream, kernel.shape, strides
            )

        return tf.nn.conv3d(inputs, kernel, **options), gradient

    return convolve(inputs, kernel)


def _gradient_by_depthwise(
    inputs: tf.Tensor,
    upstream: tf.Tensor,
    kernel_shape: tf.TensorShape,
    strides: Sequence[int],
) -> tf.Tensor:
    """One depthwise kernel gradient for each input channel.

    A filter sees one channel as a depthwise kernel does that channel, repeated for
    every filter.
    """
    del strides  # all 1
    *sizes, _, filters = kernel_shape
    depthwise_kernel = tf.zeros([*sizes, filters], inputs.dtype)
    parts = [
        plain.depthwise_kernel_gradient(
            tf.broadcast_to(channel[..., tf.newaxis], tf.shape(upstream)),
            upstream,
            depthwise_kernel,
        )
        for channel in tf.unstack(inputs, axis=-1)
    ]
    return tf.stack(parts, axis=3)


def _gradient_by_matrix_products(
    inputs: tf.Tensor,
    upstream: tf.Tensor,
    kernel_shape: tf.TensorShape,
    strides: Sequence[int],
) -> tf.Tensor:
    """One product of matrices for each tap: the voxels that it sees, and `upstream`."""
    *sizes, channels, filters = kernel_shape
    seen, paddings = [], []
    for size, kernel_size, stride in zip(
        inputs.shape[1:4], sizes, strides, strict=True
    ):
        num_outputs = -(-size // stride)
        reach = (num_outputs - 1) * stride + kernel_size
        missing = max(reach - size, 0)
        paddings.append([missing // 2, missing - missing // 2])
        seen.append((num_outputs - 1) * stride + 1)
    padded = tf.pad(inputs, [[0, 0], *paddings, [0, 0]])
    rows = tf.reshape(upstream, [-1, filters])
    products = []
    for tap in itertools.product(*map(range, sizes)):
        window = [slice(None)]
        for first, extent, stride in zip(tap, seen, strides, strict=True):
            window.append(slice(first, first + extent, stride))
        voxels = tf.reshape(padded[tuple(window)], [-1, channels])
        products.append(tf.matmul(voxels, rows, transpose_a=True))
    return tf.reshape(tf.stack(products), kernel_shape)
