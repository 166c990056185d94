"""Checks of constructor arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from u2net_tf.plan.sharp_grid import Gates


def check_positive_integer(name: str, value: int) -> int:
    """Returns `value` as an integer of at least 1, or raises ValueError."""
    if int(value) != value or value < 1:
        raise ValueError(
            f"`{name}` must be an integer of at least 1. Received: {value}"
        )
    return int(value)


def check_positive_integers(
    name: str, values: Sequence[int], *, length: int | None = None
) -> tuple[int, ...]:
    """Returns `values` as a tuple of integers of at least 1, or raises ValueError.

    Args:
      name: Name of the argument, for the error.
      values: The values to check.
      length: Required number of values; any number above 0 if None.
    """
    values = tuple(values)
    if (
        not values
        or any(int(value) != value or value < 1 for value in values)
        or (length is not None and len(values) != length)
    ):
        count = "integers" if length is None else f"{length} integers"
        raise ValueError(f"`{name}` must be {count} of at least 1. Received: {values}")
    return tuple(int(value) for value in values)


def check_num_classes(
    num_classes: Sequence[int], num_modalities: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the number of classes of each domain, or raises ValueError."""
    num_classes = check_positive_integers("num_classes", num_classes)
    if len(num_classes) != len(num_modalities):
        raise ValueError(
            "`num_modalities` and `num_classes` must each have one entry per domain. "
            f"Received: num_modalities={num_modalities}, num_classes={num_classes}"
        )
    if min(num_classes) < 2:
        raise ValueError(
            "`num_classes` includes the background and must be at least 2 per domain. "
            f"Received: num_classes={num_classes}"
        )
    return num_classes


def check_pools(pools: Sequence[int]) -> tuple[int, ...]:
    """Returns `pools`, the number of halvings per axis, or raises ValueError."""
    pools = tuple(pools)
    if (
        len(pools) != 3
        or any(int(value) != value or value < 0 for value in pools)
        or max(pools) < 1
    ):
        raise ValueError(
            "`pools` must be three integers of at least 0, not all 0. "
            f"Received: pools={pools}"
        )
    return tuple(int(value) for value in pools)


def check_gates(gates: Gates) -> Gates:
    """Returns `gates`, or raises ValueError if it is not one of `Gates`."""
    if gates not in get_args(Gates):
        raise ValueError(
            f"`gates` must be one of {get_args(Gates)}. Received: gates={gates!r}"
        )
    return gates
