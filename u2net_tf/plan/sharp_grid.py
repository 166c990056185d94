"""The grid of UNet#: which nodes and heads there are, and what a node reads."""

from __future__ import annotations

from typing import Literal

# Level (0 is full resolution) and column of a node.
Place = tuple[int, int]
# Which kinds of gates there are.
Gates = Literal["none", "deep", "top", "both"]


def node_places(depth: int) -> tuple[Place, ...]:
    """Returns the nodes of a network, each after those that it reads.

    The nodes of a network of less depth come first.
    """
    return tuple(
        (diagonal - column, column)
        for diagonal in range(depth + 1)
        for column in range(diagonal + 1)
    )


def sources(place: Place) -> tuple[Place, ...]:
    """Returns the nodes that a node reads; none for X^{0,0}, which reads the image.

    Those of its own level come first, then those below, the nearest first. A node of
    column 0 reads the one above.
    """
    level, column = place
    if column == 0:
        return ((level - 1, 0),) if level else ()
    left = tuple((level, before) for before in range(column))
    below = tuple((level + k, column - k) for k in range(1, column + 1))
    return left + below


def top_heads(depth: int) -> tuple[Place, ...]:
    """Returns the nodes of heads at full resolution: X^{0,1}, …, X^{0,depth}."""
    return tuple((0, column) for column in range(1, depth + 1))


def deep_heads(depth: int) -> tuple[Place, ...]:
    """Returns the nodes of heads below: X^{1,depth-1}, …, X^{depth,0}."""
    return tuple((level, depth - level) for level in range(1, depth + 1))


def head_places(depth: int, deep_supervision: bool) -> tuple[Place, ...]:
    """Returns the nodes that have a head.

    Args:
      depth: of the network.
      deep_supervision: whether there are others than that of X^{0,depth}.
    """
    if not deep_supervision:
        return ((0, depth),)
    return top_heads(depth) + deep_heads(depth)


def gate_places(gates: Gates, depth: int, deep_supervision: bool) -> tuple[Place, ...]:
    """Returns the nodes that have a gate.

    Args:
      gates: "top" for X^{0,L} and "deep" for X^{L,0}, of each depth L to which the
        network can be pruned; "both" or "none".
      depth: of the network.
      deep_supervision: as of `head_places`; without, it cannot be pruned.
    """
    depths = range(1, depth + 1) if deep_supervision else (depth,)
    kinds = ("top", "deep") if gates == "both" else (gates,)
    top = tuple((0, left) for left in depths) if "top" in kinds else ()
    deep = tuple((left, 0) for left in depths) if "deep" in kinds else ()
    return top + deep
