"""Wording of messages and reports."""

from __future__ import annotations


def quantity(count: int, singular: str, plural: str = "") -> str:
    """A number and what is counted: "1 case", "2 cases".

    Args:
      count: the number.
      singular: noun for one.
      plural: noun for any other number; the singular with an "s" if empty.
    """
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"
