"""Keys of checkpoints with an object graph of TensorFlow, which release 0.1.0 wrote.

The files of release 0.1.0 are otherwise upgraded by `migrations`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from u2net_tf import protocol_buffers

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def has_object_graph(keys: Any) -> bool:
    """Returns whether the keys of a checkpoint are those of an object graph."""
    return _GRAPH in keys


def spec_and_state_keys() -> tuple[str, str]:
    """Returns the keys of model and state in a checkpoint with an object graph."""
    return f"spec{_VALUE}", f"state{_VALUE}"


def checkpoint_keys(read: Callable[[str], Any]) -> dict[str, str]:
    """Maps paths of variables to their keys in a checkpoint with an object graph.

    There the key of a variable is the shortest path of attributes that leads to it,
    which may be one within an optimizer; the graph contains all paths.

    Args:
      read: returns the value of a key.
    """
    # TensorFlow's `TrackableObjectGraph`: nodes with children (1: index of the node, 2:
    # name) and attributes (3: key).
    nodes = protocol_buffers.read(read(_GRAPH)).messages(1)

    def children(node: int) -> dict[str, int]:
        return {child.text(2): child.number(1) for child in nodes[node].messages(1)}

    def key(node: int) -> str:
        return nodes[node].messages(2)[0].text(3)

    def variables(node: int, path: str) -> Iterator[tuple[str, int]]:
        for name, child in children(node).items():
            # The shared convolution was a subclass of Keras' layer.
            below = f"{path}{name.removeprefix('_')}"
            if nodes[child].messages(2):
                yield below, child
            yield from variables(child, f"{below}/")

    root = children(0)
    network = dict(variables(root["network"], ""))
    keys = {f"network/{path}": key(node) for path, node in network.items()}
    paths = {node: path for path, node in network.items()}
    for optimizer in children(root.get("optimizers", root["spec"])).values():
        parts = children(optimizer)
        if "_iterations" not in parts:
            keys |= {f"loss_scale/{name}": key(node) for name, node in parts.items()}
            continue
        trained = children(parts["_trainable_variables"])
        # The paths of a domain's variables end in its number.
        number = re.search(r"_(\d+)$", paths[trained["0"]])
        prefix = f"optimizer/{f'domain_{number[1]}' if number else 'shared'}"
        keys[f"{prefix}/iterations"] = key(parts["_iterations"])
        keys[f"{prefix}/learning_rate"] = key(parts["_learning_rate"])
        for name, slots in (("momentum", "_momentums"), ("velocity", "_velocities")):
            for index, node in children(parts[slots]).items():
                keys[f"{prefix}/{name}/{paths[trained[index]]}"] = key(node)
    return keys
