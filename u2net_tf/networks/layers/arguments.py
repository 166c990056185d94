"""Checks of constructor arguments."""

from __future__ import annotations

from collections.abc import Sequence


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
      values: What was passed.
      length: Number of values; any but 0 if None.
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
