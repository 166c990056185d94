"""Fuses patterns that tf2onnx would convert to many ONNX operations into single ones.

The patterns are those of `networks.ops.implementations.export`. The new operations are
channels first, between two transpositions; tf2onnx removes adjacent transpositions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tf2onnx.onnx_opset.nn import ConvOp

from u2net_tf.networks.ops.implementations.export import UPSAMPLED

_CHANNELS_FIRST, _CHANNELS_LAST = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)
# Upsampling method -> attributes of Resize.
_RESIZE = {
    "nearest": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    },
    "linear": {
        "mode": "linear",
        "coordinate_transformation_mode": "half_pixel",
    },
    "corners": {
        "mode": "linear",
        "coordinate_transformation_mode": "align_corners",
    },
}
# Graphs and nodes of tf2onnx, which has no type annotations.
Graph = Any
Node = Any


def convert_conv3d(graph: Graph, node: Node, name: str, args: Any) -> None:
    """Converts a Conv3D to a Conv, including its groups.

    tf2onnx supports groups in two dimensions only. For unknown sizes, it leaves the
    padding to the runtime; here sizes are divisible by the strides, so that the padding
    does not depend on them.
    """
    del name, args
    kernel = graph.get_shape(node.input[1])
    strides = node.get_attr("strides").ints[1:4]
    channels = graph.get_shape(node.input[0])[-1]
    ConvOp.any_version(graph.opset, graph, node)
    node.set_attr("group", channels // kernel[3])
    missing = [
        max(size - stride, 0) for size, stride in zip(kernel[:3], strides, strict=True)
    ]
    before = [pad // 2 for pad in missing]
    after = [pad - first for pad, first in zip(missing, before, strict=True)]
    node.set_attr("pads", before + after)
    if "auto_pad" in node.attr:
        del node.attr["auto_pad"]


HANDLERS: dict[str, Any] = {"Conv3D": (convert_conv3d, [])}


def fuse_biases(graph: Graph, nodes: list[Node]) -> list[Node]:
    """Fuses a bias into the preceding convolution."""
    for node in nodes:
        conv = node.inputs[0] if node.type == "BiasAdd" else None
        if conv is None or conv.type != "Conv3D":
            continue
        graph.replace_inputs(conv, [*conv.input, node.input[1]])
        graph.replace_all_inputs(node.output[0], conv.output[0])
        graph.remove_node(node.name)
    return graph.get_nodes()


def fuse_norms(graph: Graph, nodes: list[Node]) -> list[Node]:
    """Fuses the operations of a norm into an InstanceNormalization."""
    for node in nodes:
        scaled = node.inputs[0] if node.type == "AddV2" else None
        if scaled is None or scaled.type != "Mul":
            continue
        normalized = scaled.inputs[0]
        if normalized is None or normalized.type != "RealDiv":
            continue
        deviations, deviation = normalized.inputs
        if deviations.type != "Sub" or deviation.type != "Sqrt":
            continue
        epsilon = deviation.inputs[0].inputs[1].get_tensor_value()
        _replace(
            graph,
            node,
            "InstanceNormalization",
            deviations.input[0],
            [scaled.input[1], node.input[1]],
            {"epsilon": float(epsilon)},
        )
    return graph.get_nodes()


def fuse_upsamplings(graph: Graph, nodes: list[Node]) -> list[Node]:
    """Fuses upsampling in two dimensions and in the third into a Resize."""
    for node in nodes:
        name = node.name.rpartition("/")[2]
        if node.type != "Reshape" or not name.startswith(f"{UPSAMPLED}_"):
            continue
        _, method, *numbers = name.split("_")
        by_depth, by_height, by_width = (int(number) for number in numbers[:3])
        source = node
        for is_resized in (max(by_height, by_width) > 1, by_depth > 1):
            if is_resized:
                # From the resized image to its input.
                source = source.inputs[0].inputs[0]
        scales = graph.make_const(
            f"{node.name}__scales",
            np.array([1, 1, by_depth, by_height, by_width], np.float32),
        )
        _replace(
            graph,
            node,
            "Resize",
            source.input[0],
            ["", scales.output[0]],
            _RESIZE[method],
        )
    return graph.get_nodes()


REWRITERS = [fuse_biases, fuse_norms, fuse_upsamplings]


def _replace(
    graph: Graph,
    node: Node,
    kind: str,
    source: str,
    others: list[str],
    attributes: dict[str, Any],
) -> None:
    """Replaces a node and its inputs back to `source` by a channels-first node."""
    shape, dtype = graph.get_shape(node.output[0]), graph.get_dtype(node.output[0])
    options = {"dtypes": [dtype], "skip_conversion": True}
    first = graph.make_node(
        "Transpose", [source], attr={"perm": _CHANNELS_FIRST}, **options
    )
    fused = graph.make_node(
        kind, [first.output[0], *others], attr=attributes, **options
    )
    if shape is not None:
        graph.set_shape(fused.output[0], [shape[axis] for axis in _CHANNELS_FIRST])
    last = graph.make_node(
        "Transpose",
        fused.output,
        attr={"perm": _CHANNELS_LAST},
        shapes=[shape],
        **options,
    )
    graph.replace_all_inputs(node.output[0], last.output[0])
    graph.remove_node(node.name)
