"""Layers that keep some or all of their variables per domain."""

from u2net_tf.networks.layers.class_gate import ClassGate
from u2net_tf.networks.layers.convolutions import (
    DepthwiseConv3D,
    DomainConv3D,
    SharedConv3D,
)
from u2net_tf.networks.layers.domain_layer import DomainLayer, DomainModule
from u2net_tf.networks.layers.normalization import DomainNorm

__all__ = [
    "ClassGate",
    "DepthwiseConv3D",
    "DomainConv3D",
    "DomainLayer",
    "DomainModule",
    "DomainNorm",
    "SharedConv3D",
]
