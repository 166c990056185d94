"""The grid of UNet#: nodes, their inputs, heads and gates."""

from __future__ import annotations

from typing import Literal

# Level (0 is full resolution) and column of a node.
Place = tuple[int, int]
# Kinds of gates of a network.
Gates = Literal["none", "deep", "top", "both"]


def node_places(depth: int) -> tuple[Place, ...]:
    """Returns the nodes of a network in topological order.

    The nodes of a shallower network come first.
    """
    return tuple(
        (diagonal - column, column)
        for diagonal in range(depth + 1)
        for column in range(diagonal + 1)
    )


def sources(place: Place) -> tuple[Place, ...]:
    """Returns the inputs of a node; none for X^{0,0}, whose input is the stem.

    Nodes of the same level come first, then those below, nearest first. The input of a
    node in column 0 is the node above it.
    """
    level, column = place
    if column == 0:
        return ((level - 1, 0),) if level else ()
    left = tuple((level, before) for before in range(column))
    below = tuple((level + k, column - k) for k in range(1, column + 1))
    return left + below


def top_heads(depth: int) -> tuple[Place, ...]:
    """Returns the nodes with heads at full resolution: X^{0,1}, …, X^{0,depth}."""
    return tuple((0, column) for column in range(1, depth + 1))


def deep_heads(depth: int) -> tuple[Place, ...]:
    """Returns the nodes with heads at lower levels: X^{1,depth-1}, …, X^{depth,0}."""
    return tuple((level, depth - level) for level in range(1, depth + 1))


def head_places(depth: int, deep_supervision: bool) -> tuple[Place, ...]:
    """Returns the nodes that have a head.

    Args:
      depth: depth of the network.
      deep_supervision: whether there are more heads than that of X^{0,depth}.
    """
    if not deep_supervision:
        return ((0, depth),)
    return top_heads(depth) + deep_heads(depth)


def gate_places(gates: Gates, depth: int, deep_supervision: bool) -> tuple[Place, ...]:
    """Returns the nodes that have a gate.

    Args:
      gates: "top" for X^{0,L} and "deep" for X^{L,0}, for each depth L to which the
        network can be pruned; "both" or "none".
      depth: depth of the network.
      deep_supervision: see `head_places`; a network without it cannot be pruned.
    """
    depths = range(1, depth + 1) if deep_supervision else (depth,)
    kinds = ("top", "deep") if gates == "both" else (gates,)
    top = tuple((0, pruned) for pruned in depths) if "top" in kinds else ()
    deep = tuple((pruned, 0) for pruned in depths) if "deep" in kinds else ()
    return top + deep
