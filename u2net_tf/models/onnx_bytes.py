"""ONNX graphs as bytes: checked, and joined with the weights that lie beside them.

No package is needed for it. What a graph may hold is listed here, and anything else is
refused: a graph that passes names no file, no code and no graph within it, so that a
runtime has nothing to read but these bytes.

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
# Numbers of the fields of messages that are read here.
_GRAPH = 7
_NODES, _INITIALIZERS, _INPUTS, _OUTPUTS = 1, 5, 11, 12
_OPERATION, _ATTRIBUTES, _OPERATIONS_OF = 4, 5, 7
_ATTRIBUTE_TENSOR = 5
_DIMS, _DATA_TYPE, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 9, 13, 14
_EXTERNAL = 1
_MAX_DIMS = 8
# And of the fields that they may have: no functions, training, graphs in attributes,
# sparse tensors or annotations.
_IN_MODEL = frozenset((1, 2, 3, 4, 5, 6, _GRAPH, 8, 14))
_IN_GRAPH = frozenset((_NODES, 2, _INITIALIZERS, 10, _INPUTS, _OUTPUTS, 13))
_IN_NODE = frozenset((1, 2, 3, _OPERATION, _ATTRIBUTES, 6, _OPERATIONS_OF))
_IN_ATTRIBUTE = frozenset((1, 2, 3, 4, _ATTRIBUTE_TENSOR, 7, 8, 9, 13, 20))
_IN_TENSOR = frozenset((_DIMS, _DATA_TYPE, 4, 5, 6, 7, 8, _RAW_DATA, 10, 11, 12))
_IN_EXTERNAL_TENSOR = frozenset((_DIMS, _DATA_TYPE, 8, _EXTERNAL_DATA, _DATA_LOCATION))


def join_weights(
    graph: bytes, weights: bytes, *, location: str, source: object
) -> bytes:
    """Returns a graph that holds its weights itself.

    Args:
      graph: an ONNX model.
      weights: what tensors of it refer to.
      location: the name under which they do.
      source: the file, for error messages.

    Raises:
      InputError: if it is no such graph, or holds anything that is not expected of it.
    """
    try:
        return _join(graph, weights, location)
    except InputError as error:
        raise error.within(source) from None
    except ValueError as error:
        raise InputError(
            source, expected="an ONNX graph as it was packed", received=error
        ) from None


def _join(graph: bytes, weights: bytes, location: str) -> bytes:
    parts = []
    graphs = 0
    for field in read_fields(graph):
        _require_known({field.number}, _IN_MODEL, "model")
        if field.number == _GRAPH:
            graphs += 1
            content = _joined_graph(_bytes(field.value), weights, location)
            parts.append(write_bytes(_GRAPH, content))
        else:
            parts.append(graph[field.start : field.end])
    if graphs != 1:
        raise InputError("", expected="one graph", received=graphs)
    return b"".join(parts)


def _joined_graph(graph: bytes, weights: bytes, location: str) -> bytes:
    parts = []
    for field in read_fields(graph):
        _require_known({field.number}, _IN_GRAPH, "graph")
        whole = graph[field.start : field.end]
        if field.number == _NODES:
            _check_node(read(_bytes(field.value)))
        elif field.number == _INITIALIZERS:
            tensor = _bytes(field.value)
            whole = write_bytes(
                _INITIALIZERS, _joined_tensor(tensor, weights, location)
            )
        parts.append(whole)
    return b"".join(parts)


def _check_node(node: Message) -> None:
    operation = node.text(_OPERATION)
    _require_known(node.fields(), _IN_NODE, f"node {operation}")
    if operations_of := node.text(_OPERATIONS_OF):
        raise InputError(
            f"node {operation}",
            expected="an operation of ONNX itself",
            received=f"one of {operations_of}",
        )
    for attribute in node.messages(_ATTRIBUTES):
        place = f"node {operation}: attribute"
        _require_known(attribute.fields(), _IN_ATTRIBUTE, place)
        for tensor in attribute.messages(_ATTRIBUTE_TENSOR):
            _require_known(tensor.fields(), _IN_TENSOR, f"{place}: tensor")


def _joined_tensor(tensor: bytes, weights: bytes, location: str) -> bytes:
    """The tensor, with the bytes that it refers to in place of the reference."""
    content = read(tensor)
    if not content.fields() & {_EXTERNAL_DATA, _DATA_LOCATION}:
        _require_known(content.fields(), _IN_TENSOR, "tensor")
        return tensor
    _require_known(content.fields(), _IN_EXTERNAL_TENSOR, "tensor in another file")
    kind, size = content.number(_DATA_TYPE), content.numbers(_DIMS)
    is_external = content.number(_DATA_LOCATION) == _EXTERNAL
    if not is_external or kind not in ITEM_BYTES or len(size) > _MAX_DIMS:
        raise InputError(
            "tensor in another file",
            expected=f"float32 or float16 of at most {_MAX_DIMS} dimensions",
            received=f"data type {kind} of {len(size)}",
        )
    entries = content.messages(_EXTERNAL_DATA)
    found = {entry.text(1): entry.text(2) for entry in entries}
    start, end = _span(found, len(entries), location, len(weights))
    expected = math.prod(size) * ITEM_BYTES[kind]
    if end - start != expected:
        raise InputError(
            "tensor in another file",
            expected=f"{expected:,} bytes for shape {tuple(size)}",
            received=f"{end - start:,}",
        )
    kept = [
        tensor[field.start : field.end]
        for field in read_fields(tensor)
        if field.number not in (_EXTERNAL_DATA, _DATA_LOCATION)
    ]
    return b"".join([*kept, write_bytes(_RAW_DATA, weights[start:end])])


def _span(
    entries: dict[str, str], num_entries: int, location: str, num_bytes: int
) -> tuple[int, int]:
    """Where the bytes of a tensor begin and end."""
    place = "tensor in another file"
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
            expected=f"bytes within the {num_bytes:,} of {location}",
            received=f"{length:,} from {start:,} on",
        )
    return start, start + length


def check_shapes(
    model: bytes, domain: Domain, *, any_size: bool, source: object
) -> None:
    """Checks that a graph takes patches of a domain and returns its probabilities.

    Args:
      model: as `join_weights` returned it.
      domain: the domain.
      any_size: whether it takes patches of any size.
      source: the file, for error messages.

    Raises:
      InputError: if it does not.
    """
    size = ("D", "H", "W") if any_size else domain.patch_size
    (graph,) = read(model).messages(_GRAPH)
    try:
        found = [
            [_shape(value) for value in graph.messages(field)]
            for field in (_INPUTS, _OUTPUTS)
        ]
    except ValueError as error:
        expected = "an ONNX graph as it was packed"
        raise InputError(source, expected=expected, received=error) from None
    expected_shapes = [
        [(INPUT, FLOAT, ("N", *size, domain.num_modalities))],
        [(OUTPUT, FLOAT, ("N", *size, domain.num_classes))],
    ]
    if found != expected_shapes:
        raise InputError(
            source,
            expected=_shown(expected_shapes),
            received=_shown(found),
        )


def _shape(value: Message) -> tuple[str, int, tuple[str | int, ...]]:
    """Name, type and shape of an input or output of a graph."""
    (kind,) = value.messages(2)
    (tensor,) = kind.messages(1)
    (shape,) = tensor.messages(2)
    dims = [dim.text(2) or dim.number(1) for dim in shape.messages(1)]
    return value.text(1), tensor.number(1), tuple(dims)


def _shown(values: Sequence[Sequence[tuple]]) -> str:
    return " -> ".join(
        " and ".join(f"{name} of type {kind}, {shape}" for name, kind, shape in each)
        for each in values
    )


def _require_known(
    found: set[int] | frozenset[int], known: frozenset[int], place: str
) -> None:
    if unknown := sorted(found - known):
        raise InputError(
            place,
            expected=f"fields {', '.join(map(str, sorted(known)))}",
            received=f"field {unknown[0]}",
        )


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number in place of a message")
    return value
