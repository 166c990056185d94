"""Patches, and the operations expected in ONNX graphs of both architectures."""

import collections

import numpy as np
import tensorflow as tf

from u2net_tf.models.segmentation import segment_patches
from u2net_tf.networks import ops
from u2net_tf.networks.blocks import EncoderBlock
from u2net_tf.networks.conv_units import ParallelUnit, SeriesUnit
from u2net_tf.networks.layers import (
    DepthwiseConv3D,
    DomainConv3D,
    DomainNorm,
    SharedConv3D,
)
from u2net_tf.networks.unet_sharp import UNetSharp
from u2net_tf.plan.sharp_grid import sources

SHARP = {"architecture": "unet_sharp", "depth": 2, "pools": (1, 2, 2)}


def draw_patches(spec, index, num=2, seed=0):
    domain = spec.plan.domains[index]
    shape = (num, *domain.patch_size, domain.num_modalities)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run_tensorflow(spec, network, index, patches):
    """Returns probabilities as prediction computes them."""
    with ops.use_implementation("plain"):
        return segment_patches(network, spec, index, tf.constant(patches)).numpy()


def count_types(model):
    return collections.Counter(node.op_type for node in model.graph.node)


def expected_types(network):
    """Operations of an ideal graph of a network, including the softmax."""
    layers = list(_layers(network))
    kinds = collections.Counter(type(layer) for layer in layers)
    norms = [layer for layer in layers if isinstance(layer, DomainNorm)]
    found = collections.Counter(
        Conv=kinds[DepthwiseConv3D] + kinds[DomainConv3D] + kinds[SharedConv3D],
        InstanceNormalization=len(norms),
        LeakyRelu=sum(norm.negative_slope is not None for norm in norms),
        # Each of these adds two feature maps.
        Add=kinds[EncoderBlock] + kinds[SeriesUnit] + kinds[ParallelUnit],
        Softmax=1,
    )
    if isinstance(network, UNetSharp):
        found += _connections_of_sharp(network)
    else:
        found += _connections_of_u2net(network)
    return +found


def _layers(part):
    for name, layer in part.parts.items():
        is_head = isinstance(part, UNetSharp) and name.startswith("head_")
        if is_head and name != f"head_0_{part.depth}":
            continue
        yield layer
        yield from _layers(layer)


def _connections_of_u2net(network):
    levels = len(network.decoder)
    found = collections.Counter(Concat=levels)
    found["Resize"] += sum(max(network.strides(level)) > 1 for level in range(levels))
    deep = network.supervised_levels
    if deep:
        # Logits are up-sampled level by level and added, up to full resolution.
        found["Resize"] += max(deep)
        found["Add"] += len(deep)
    return found


def _connections_of_sharp(network):
    found = collections.Counter()
    for place, node in network.nodes.items():
        found["Resize"] += sum(max(factors) > 1 for factors in node.upsample)
        found["Concat"] += len(sources(place)) > 1
        found["MaxPool"] += place[1] == 0 and place[0] > 0
    return found


def num_groups(model):
    return [
        next(each.i for each in node.attribute if each.name == "group")
        for node in model.graph.node
        if node.op_type == "Conv"
    ]
