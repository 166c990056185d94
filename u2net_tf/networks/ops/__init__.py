"""Stateless maths of the networks: tensors in, tensors out, no variables."""

from u2net_tf.networks.ops.convolution import conv3d
from u2net_tf.networks.ops.depthwise import depthwise_conv3d
from u2net_tf.networks.ops.implementations import ROUTES, current_route, use_route
from u2net_tf.networks.ops.normalization import instance_norm
from u2net_tf.networks.ops.upsampling import upsample_nearest

__all__ = [
    "ROUTES",
    "conv3d",
    "current_route",
    "depthwise_conv3d",
    "instance_norm",
    "upsample_nearest",
    "use_route",
]
