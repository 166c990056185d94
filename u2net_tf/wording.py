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


def duration(seconds: float) -> str:
    """A duration: "8 s", "2 min 5 s", "12 min", "1 h 20 min", "2 d 3 h".

    Args:
      seconds: its length. It is rounded to whole seconds, and from 10 minutes on cut to
        whole minutes, from a day on to whole hours.
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10 and rest:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes} min"
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    first = 0 if days else 1
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2] if n)
