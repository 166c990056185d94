"""Whether XLA can compile the kernels for the GPU at hand."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from u2net_tf.networks.ops.implementations import plain
from u2net_tf.networks.ops.implementations.triton import operations

# Largest difference from the plain implementation, relative to the largest value.
_TOLERANCE = 1e-5
_SHAPE = (1, 4, 8, 8, 2)
_KERNEL_SHAPE = (3, 3, 3, 2)


@functools.cache
def reason_unavailable() -> str | None:
    """Returns why the kernels cannot be used in this process, or None if they can.

    A small convolution and its gradients are computed on the first GPU, compiled by
    XLA, and compared with the plain implementation on the CPU.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return "there is no GPU"
    try:
        with tf.device(gpus[0].name):
            found = _compiled_example()
    except tf.errors.OpError as error:
        message, *_ = error.message.splitlines()
        return f"XLA cannot compile them for {gpus[0].name}: {message}"
    with tf.device("CPU:0"):
        expected = _example(
            plain.depthwise_conv3d,
            plain.depthwise_input_gradient,
            plain.depthwise_kernel_gradient,
        )
    largest = np.max([_difference(*each) for each in zip(found, expected, strict=True)])
    # Written so that NaN fails.
    if not largest <= _TOLERANCE:
        return f"a convolution on {gpus[0].name} has a relative error of {largest:.1e}"
    return None


@tf.function(jit_compile=True, autograph=False)
def _compiled_example() -> list[tf.Tensor]:
    return _example(
        operations.depthwise_conv3d,
        operations.depthwise_input_gradient,
        operations.depthwise_kernel_gradient,
    )


def _example(
    convolve: Callable[..., tf.Tensor],
    input_gradient: Callable[..., tf.Tensor],
    kernel_gradient: Callable[..., tf.Tensor],
) -> list[tf.Tensor]:
    """Returns outputs and gradients of two convolutions, one of up-sampled maps."""
    inputs, kernel, bias = _values(_SHAPE), _values(_KERNEL_SHAPE), _values((2,))
    results = []
    for factors in ((1, 1, 1), (1, 2, 2)):
        outputs = convolve(inputs, kernel, bias, factors)
        results += [
            outputs,
            input_gradient(inputs, outputs, kernel, factors),
            kernel_gradient(inputs, outputs, kernel, factors),
        ]
    return results


def _difference(found: tf.Tensor, expected: tf.Tensor) -> float:
    """Returns the largest difference, relative to the largest expected value."""
    difference = np.abs(found.numpy() - expected.numpy())
    return float(np.max(difference) / np.max(np.abs(expected.numpy())))


def _values(shape: tuple[int, ...]) -> tf.Tensor:
    """Returns values in [-0.5, 0.5) without a visible pattern."""
    count = tf.reduce_prod(tf.constant(shape))
    steps = tf.range(count) * 37 % 101
    return tf.reshape(tf.cast(steps, tf.float32) / 101 - 0.5, shape)
