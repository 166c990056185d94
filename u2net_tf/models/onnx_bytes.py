"""Checks serialized ONNX graphs and embeds their external weights.

No ONNX package is needed. Only the fields listed here are allowed, and anything else is
rejected: an accepted graph refers to no file and contains no code and no subgraph, so
that a runtime reads nothing but these bytes.

Reference: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from u2net_tf.errors import InputError
from u2net_tf.models.exported import INPUT, OUTPUT
from u2net_tf.plan.domains import Domain
from u2net_tf.protocol_buffers import Message, read, read_fields, write_bytes

FLOAT, FLOAT16 = 1, 10
ITEM_BYTES = {FLOAT: 4, FLOAT16: 2}
# Numbers of the message fields that are read here.
_GRAPH = 7
_NODES, _INITIALIZERS, _INPUTS, _OUTPUTS = 1, 5, 11, 12
_OPERATION, _ATTRIBUTES, _OPERATOR_SET = 4, 5, 7
_ATTRIBUTE_TENSOR = 5
_DIMS, _DATA_TYPE, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 9, 13, 14
_EXTERNAL = 1
_MAX_DIMS = 8
# Equal tensors share their bytes. Without a limit, a small file could refer to the same
# bytes so often that the model fills the memory.
MAX_USES_OF_WEIGHTS = 16
# Limit of protocol buffers.
_MAX_MODEL_BYTES = 2**31 - 1
# Numbers of all fields that are allowed: no functions, training information, graphs in
# attributes, sparse tensors or annotations.
_MODEL_FIELDS = frozenset((1, 2, 3, 4, 5, 6, _GRAPH, 8, 14))
_GRAPH_FIELDS = frozenset((_NODES, 2, _INITIALIZERS, 10, _INPUTS, _OUTPUTS, 13))
_NODE_FIELDS = frozenset((1, 2, 3, _OPERATION, _ATTRIBUTES, 6, _OPERATOR_SET))
_ATTRIBUTE_FIELDS = frozenset((1, 2, 3, 4, _ATTRIBUTE_TENSOR, 7, 8, 9, 13, 20))
_TENSOR_FIELDS = frozenset((_DIMS, _DATA_TYPE, 4, 5, 6, 7, 8, _RAW_DATA, 10, 11, 12))
_EXTERNAL_FIELDS = frozenset((_DIMS, _DATA_TYPE, 8, _EXTERNAL_DATA, _DATA_LOCATION))


def join_weights(
    graph: bytes, weights: bytes, *, location: str, source: object
) -> bytes:
    """Returns an ONNX model with its external weights embedded.

    Args:
      graph: an ONNX model.
      weights: the external data that its tensors refer to.
      location: the name by which the tensors refer to it.
      source: the file, for error messages.

    Raises:
      InputError: if it is not an ONNX model, or has a field that is not allowed.
    """
    try:
        return _embed_in_model(graph, weights, location)
    except InputError as error:
        raise error.within(source) from None
    except ValueError as error:
        raise InputError(
            source, expected="an undamaged ONNX graph", received=error
        ) from None


def _embed_in_model(graph: bytes, weights: bytes, location: str) -> bytes:
    parts = []
    graphs = 0
    for field in read_fields(graph):
        _require_allowed({field.number}, _MODEL_FIELDS, "model")
        if field.number == _GRAPH:
            graphs += 1
            content = _embed_in_graph(_require_bytes(field.value), weights, location)
            parts.append(write_bytes(_GRAPH, content))
        else:
            parts.append(graph[field.start : field.end])
    if graphs != 1:
        raise InputError("", expected="one graph", received=graphs)
    return b"".join(parts)


def _embed_in_graph(graph: bytes, weights: bytes, location: str) -> bytes:
    parts = []
    embedded = 0
    limit = min(MAX_USES_OF_WEIGHTS * len(weights), _MAX_MODEL_BYTES)
    for field in read_fields(graph):
        _require_allowed({field.number}, _GRAPH_FIELDS, "graph")
        part = graph[field.start : field.end]
        if field.number == _NODES:
            _check_node(read(_require_bytes(field.value)))
        elif field.number == _INITIALIZERS:
            tensor = _require_bytes(field.value)
            complete = _embed_in_tensor(tensor, weights, location)
            embedded += max(0, len(complete) - len(tensor))
            if embedded > limit:
                raise InputError(
                    "tensors with external data",
                    expected=f"at most {limit:,} bytes, as {location} has "
                    f"{len(weights):,}",
                    received="more",
                )
            part = write_bytes(_INITIALIZERS, complete)
        parts.append(part)
    return b"".join(parts)


def _check_node(node: Message) -> None:
    operation = node.text(_OPERATION)
    _require_allowed(node.fields(), _NODE_FIELDS, f"node {operation}")
    if operator_set := node.text(_OPERATOR_SET):
        raise InputError(
            f"node {operation}",
            expected="a standard ONNX operation",
            received=f"one of the operator set {operator_set}",
        )
    for attribute in node.messages(_ATTRIBUTES):
        place = f"node {operation}: attribute"
        _require_allowed(attribute.fields(), _ATTRIBUTE_FIELDS, place)
        for tensor in attribute.messages(_ATTRIBUTE_TENSOR):
            _require_allowed(tensor.fields(), _TENSOR_FIELDS, f"{place}: tensor")


def _embed_in_tensor(tensor: bytes, weights: bytes, location: str) -> bytes:
    """Returns the tensor with its external data embedded."""
    content = read(tensor)
    if not content.fields() & {_EXTERNAL_DATA, _DATA_LOCATION}:
        _require_allowed(content.fields(), _TENSOR_FIELDS, "tensor")
        return tensor
    _require_allowed(content.fields(), _EXTERNAL_FIELDS, "tensor with external data")
    kind, shape = content.number(_DATA_TYPE), content.numbers(_DIMS)
    is_external = content.number(_DATA_LOCATION) == _EXTERNAL
    if not is_external or kind not in ITEM_BYTES or len(shape) > _MAX_DIMS:
        raise InputError(
            "tensor with external data",
            expected=f"float32 or float16 with at most {_MAX_DIMS} dimensions",
            received=f"data type {kind} with {len(shape)}",
        )
    entries = content.messages(_EXTERNAL_DATA)
    found = {entry.text(1): entry.text(2) for entry in entries}
    start, end = _data_range(found, len(entries), location, len(weights))
    expected = math.prod(shape) * ITEM_BYTES[kind]
    if end - start != expected:
        raise InputError(
            "tensor with external data",
            expected=f"{expected:,} bytes for shape {tuple(shape)}",
            received=f"{end - start:,}",
        )
    kept = [
        tensor[field.start : field.end]
        for field in read_fields(tensor)
        if field.number not in (_EXTERNAL_DATA, _DATA_LOCATION)
    ]
    return b"".join([*kept, write_bytes(_RAW_DATA, weights[start:end])])


def _data_range(
    entries: dict[str, str], num_entries: int, location: str, num_bytes: int
) -> tuple[int, int]:
    """Returns the start and end offsets of a tensor's external data."""
    place = "tensor with external data"
    if entries.get("location") != location:
        received = repr(entries.get("location", ""))
        raise InputError(place, expected=repr(location), received=received)
    numbers = [entries.get(name, "") for name in ("offset", "length")]
    digits = all(n.isascii() and n.isdigit() and len(n) < 20 for n in numbers)
    if num_entries != 3 or not digits:
        raise InputError(
            place,
            expected="location, offset and length",
            received=", ".join(f"{name} {text!r}" for name, text in entries.items()),
        )
    start, length = map(int, numbers)
    if start + length > num_bytes:
        raise InputError(
            place,
            expected=f"a range within the {num_bytes:,} bytes of {location}",
            received=f"{length:,} bytes from offset {start:,}",
        )
    return start, start + length


def check_shapes(
    model: bytes, domain: Domain, *, any_size: bool, source: object
) -> None:
    """Checks that a graph maps patches of a domain to its class probabilities.

    Args:
      model: the ONNX model that `join_weights` returned.
      domain: provides patch size, modalities and classes.
      any_size: whether the graph should accept patches of any size.
      source: the file, for error messages.

    Raises:
      InputError: if the inputs or outputs have other names, types or shapes.
    """
    size = ("D", "H", "W") if any_size else domain.patch_size
    (graph,) = read(model).messages(_GRAPH)
    try:
        found = [
            [_shape(value) for value in graph.messages(field)]
            for field in (_INPUTS, _OUTPUTS)
        ]
    except ValueError as error:
        expected = "an undamaged ONNX graph"
        raise InputError(source, expected=expected, received=error) from None
    expected_shapes = [
        [(INPUT, FLOAT, ("N", *size, domain.num_modalities))],
        [(OUTPUT, FLOAT, ("N", *size, domain.num_classes))],
    ]
    if found != expected_shapes:
        raise InputError(
            source,
            expected=_format_values(expected_shapes),
            received=_format_values(found),
        )


def _shape(value: Message) -> tuple[str, int, tuple[str | int, ...]]:
    """Returns the name, type and shape of an input or output of a graph."""
    (kind,) = value.messages(2)
    (tensor,) = kind.messages(1)
    (shape,) = tensor.messages(2)
    dims = [dim.text(2) or dim.number(1) for dim in shape.messages(1)]
    return value.text(1), tensor.number(1), tuple(dims)


def _format_values(values: Sequence[Sequence[tuple]]) -> str:
    return " -> ".join(
        " and ".join(f"{name} of type {kind}, {shape}" for name, kind, shape in each)
        for each in values
    )


def _require_allowed(
    found: set[int] | frozenset[int], allowed: frozenset[int], place: str
) -> None:
    if unknown := sorted(found - allowed):
        raise InputError(
            place,
            expected=f"fields {', '.join(map(str, sorted(allowed)))}",
            received=f"field {unknown[0]}",
        )


def _require_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number instead of a message")
    return value
