"""The depthwise convolution, and up-sampling in front of it.

TensorFlow has no grouped Conv3D on the CPU that trains, and its autodiff does not know
that the gradient of the input is the same operation with the kernel turned round. So
both gradients are written out. `tools/bench/depthwise.py` measures the routes.
"""

import math

import tensorflow as tf

from u2net_tf.networks.ops.biases import sum_over_voxels
from u2net_tf.networks.ops.implementations import check_route
from u2net_tf.networks.ops.planes import convolve_planes, kernel_gradient
from u2net_tf.networks.ops.shapes import check_factors, check_rank_5
from u2net_tf.networks.ops.shifted import convolve_shifted, gather_shifted
from u2net_tf.networks.ops.upsampling import add_repeated, upsample_nearest

# Numbers of an up-sampled map from which on it is better not made: 8 MB in float32.
_FEWEST_TO_FUSE = 2**21


def depthwise_conv3d(inputs, kernel, bias=None, *, upsample=(1, 1, 1), route=None):
    """Convolves every channel with its own kernel, stride 1, 'SAME' padding.

    Args:
        inputs: Tensor of shape (N, D, H, W, C); N, D, H, W may be unknown.
        kernel: Tensor of shape (kd, kh, kw, C), odd kd, kh, kw.
        bias: Tensor of shape (C,), added to the outputs; None for none.
        upsample: Three integers of at least 1: how often every voxel of the inputs is
            repeated along D, H, W before. With the compiled route the repeated map, if
            large, is made for the gradient of the kernel only.
        route: "compiled": multiply-adds of shifted maps, which XLA makes one pass of.
            "plain": a sum of 2D depthwise convolutions, one for each depth tap. The
            current route (see `use_route`) if None. In both, the gradient of the kernel
            is made of 2D filter gradients.

    Returns:
        A tensor of shape (N, D·fd, H·fh, W·fw, C) and of the dtype of `inputs`.

    Raises:
        ValueError: If a rank, the channels or the parity of the kernel is wrong, or
            `upsample` or `route` is.

    Reference:
        3D U²-Net, section 2 (domain adapter); a cross-correlation, as everywhere
        in deep learning.
    """
    inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    check_rank_5(inputs)
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
    biases = [] if bias is None else [tf.convert_to_tensor(bias)]
    if biases and biases[0].shape != kernel.shape[-1:]:
        raise ValueError(
            "`bias` must have one value per channel. Received: "
            f"bias.shape={biases[0].shape}, kernel.shape={kernel.shape}"
        )
    factors, route = check_factors("upsample", upsample), check_route(route)

    @tf.custom_gradient
    def convolve(inputs, kernel, *biases):
        def gradient(upstream):
            return (
                _inputs_gradient(route, inputs, upstream, kernel, factors),
                kernel_gradient(
                    upsample_nearest(inputs, factors, route=route), upstream, kernel
                ),
                *(sum_over_voxels(upstream) for _ in biases),
            )

        return _convolve(route, inputs, kernel, biases, factors), gradient

    return convolve(inputs, kernel, *biases)


def _convolve(route, inputs, kernel, biases, factors):
    if not _fuses_upsampling(route, inputs, factors):
        inputs = upsample_nearest(inputs, factors, route=route)
        factors = (1, 1, 1)
    if route == "compiled":
        # A bias of zero rather than none: the gradient then shares what is compiled.
        bias = biases[0] if biases else tf.zeros(kernel.shape[-1:], kernel.dtype)
        return convolve_shifted(route, inputs, kernel, bias, factors)
    outputs = convolve_planes(inputs, kernel)
    return tf.nn.bias_add(outputs, biases[0]) if biases else outputs


def _inputs_gradient(route, inputs, upstream, kernel, factors):
    if factors != (1, 1, 1) and _fuses_upsampling(route, inputs, factors):
        return gather_shifted(route, upstream, kernel, factors)
    turned = tf.reverse(kernel, axis=[0, 1, 2])
    gradient = _convolve(route, upstream, turned, [], (1, 1, 1))
    return add_repeated(route, gradient, factors) if max(factors) > 1 else gradient


def _fuses_upsampling(route, inputs, factors):
    """Whether the up-sampled map is not made: small ones are not worth compiling."""
    if route != "compiled":
        return False
    num_outputs = math.prod(factors) * (inputs.shape.num_elements() or math.inf)
    return num_outputs >= _FEWEST_TO_FUSE
