"""The dense convolution."""

import functools

import tensorflow as tf

from u2net_tf.networks.ops.biases import add_bias
from u2net_tf.networks.ops.shapes import check_rank_5, dims


def conv3d(inputs, kernel, bias=None, *, strides=(1, 1, 1)):
    """Convolves with 'SAME' padding.

    Args:
        inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown. Or a list of
            such tensors that count as one, side by side along C; with a pointwise
            kernel, that one is not made.
        kernel: Tensor of shape (kd, kh, kw, C, F).
        bias: Tensor of shape (F,), added to the outputs; None for none.
        strides: Three integers of at least 1, along D, H, W.

    Returns:
        A tensor of shape (N, D/sd, H/sh, W/sw, F), rounded up, and of the dtype of
        `inputs`.

    Raises:
        ValueError: If `inputs` is not of rank 5.
    """
    kernel = tf.convert_to_tensor(kernel)
    parts = inputs if isinstance(inputs, list) else [inputs]
    parts = [tf.convert_to_tensor(part) for part in parts]
    for part in parts:
        check_rank_5(part)
    outputs = _convolve(parts, kernel, strides)
    return outputs if bias is None else add_bias(outputs, bias)


def _convolve(parts, kernel, strides):
    if tuple(kernel.shape[:3]) == tuple(strides) == (1, 1, 1):
        matrices = tf.split(kernel[0, 0, 0], [part.shape[-1] for part in parts])
        products = map(_pointwise, parts, matrices)
        return functools.reduce(tf.add, products)
    inputs = tf.concat(parts, axis=-1) if len(parts) > 1 else parts[0]
    # TensorFlow 2.21 on a CPU with AVX512_BF16 reads memory that nobody wrote in the
    # bfloat16 gradient of such a kernel over a map that is 2 deep.
    faulty = kernel.shape[0] > 1 and inputs.shape[1] in (2, None)
    if inputs.dtype == tf.bfloat16 and faulty:
        wide = [tf.cast(tensor, tf.float32) for tensor in (inputs, kernel)]
        return tf.cast(_convolve(wide[:1], wide[1], strides), inputs.dtype)
    return tf.nn.conv3d(inputs, kernel, strides=[1, *strides, 1], padding="SAME")


def _pointwise(inputs, matrix):
    """A product of matrices: with its gradients, faster than the convolution."""
    *outer, channels = dims(inputs)
    outputs = tf.matmul(tf.reshape(inputs, [-1, channels]), matrix)
    return tf.reshape(outputs, [*outer, matrix.shape[-1]])
