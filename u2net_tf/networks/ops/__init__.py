"""Stateless operations of the networks: tensors in, tensors out, no variables."""

from u2net_tf.networks.ops.convolution import conv3d
from u2net_tf.networks.ops.custom_gradients import without_gradients
from u2net_tf.networks.ops.depthwise import depthwise_conv3d
from u2net_tf.networks.ops.implementations import (
    IMPLEMENTATIONS,
    current_implementation,
    use_implementation,
)
from u2net_tf.networks.ops.max_pooling import max_pool
from u2net_tf.networks.ops.normalization import instance_norm
from u2net_tf.networks.ops.upsampled_convolution import conv3d_upsampled
from u2net_tf.networks.ops.upsampling import upsample_linear, upsample_nearest

__all__ = [
    "IMPLEMENTATIONS",
    "conv3d",
    "conv3d_upsampled",
    "current_implementation",
    "depthwise_conv3d",
    "instance_norm",
    "max_pool",
    "upsample_linear",
    "upsample_nearest",
    "use_implementation",
    "without_gradients",
]
