"""Shapes of feature maps, which may be partially unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

# Repetitions of each voxel along D, H, W.
Factors = tuple[int, int, int]


def dims(tensor: tf.Tensor) -> list[int | tf.Tensor]:
    """Returns the shape as a list: integers where known, scalars elsewhere."""
    sizes = tensor.shape.as_list()
    if None not in sizes:
        return sizes
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(sizes)]


def product(sizes: Sequence[int | tf.Tensor]) -> int | tf.Tensor:
    """Returns the product of sizes as returned by `dims`."""
    # Known sizes first, in Python: products with tensors are operations in the graph.
    known = math.prod(size for size in sizes if isinstance(size, int))
    for size in sizes:
        if not isinstance(size, int):
            known = known * size
    return known


def check_rank_5(inputs: tf.Tensor) -> None:
    """Raises ValueError unless `inputs` has the axes (N, D, H, W, C)."""
    if inputs.shape.rank != 5:
        raise ValueError(
            "`inputs` must have the axes (N, D, H, W, C). "
            f"Received: inputs.shape={inputs.shape}"
        )


def check_factors(name: str, factors: Sequence[int]) -> Factors:
    """Returns up-sampling factors as a tuple of integers.

    Raises:
      ValueError: If they are not three integers of at least 1.
    """
    factors = tuple(factors)
    if len(factors) != 3 or any(
        int(factor) != factor or factor < 1 for factor in factors
    ):
        raise ValueError(
            f"`{name}` must be three integers of at least 1. Received: {name}={factors}"
        )
    depth, height, width = map(int, factors)
    return depth, height, width
