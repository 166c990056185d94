"""Wording of messages and reports."""

from __future__ import annotations

from collections.abc import Sequence


def quantity(count: int, singular: str, plural: str = "") -> str:
    """A number and what is counted: "1 case", "2 cases".

    Args:
      count: the number.
      singular: noun for one.
      plural: noun for any other number; the singular with an "s" if empty.
    """
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"


def first_few(values: Sequence[object], *, limit: int = 5) -> str:
    """Values separated by commas, the first of many: "1, 2, 3, 4, 5 and 1,997 more".

    Args:
      values: the values.
      limit: how many are written out at most.
    """
    text = ", ".join(map(str, values[:limit]))
    more = len(values) - limit
    return f"{text} and {more:,} more" if more > 0 else text
