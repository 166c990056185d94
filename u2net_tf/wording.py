"""Wording of messages and reports."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def quantity(count: int, singular: str, plural: str = "") -> str:
    """Formats a count with its noun: "1 case", "2 cases".

    Args:
      count: the number.
      singular: noun for one.
      plural: noun for any other number; the singular with an "s" if empty.
    """
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"


def three_digits(value: float) -> str:
    """Formats a positive number with 3 significant digits, or more before the point.

    Unlike the format "g", it has no exponent for large numbers: "0.703", "12", "1024".
    """
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def first_few(values: Sequence[object], *, limit: int = 5) -> str:
    """Joins values by commas, the first few of many: "1, 2, 3, 4, 5 and 1,997 more".

    Args:
      values: values to list; converted by `str`.
      limit: maximum number of values to write out.
    """
    text = ", ".join(map(str, values[:limit]))
    more = len(values) - limit
    return f"{text} and {more:,} more" if more > 0 else text


def shortened(text: str, limit: int) -> str:
    """Replaces the middle of a text that has more than `limit` characters by "…".

    Names of many cases or classes often differ at the end only.
    """
    if len(text) <= limit:
        return text
    end = (limit - 1) // 2
    return f"{text[: limit - 1 - end]}…{text[len(text) - end :]}"


def duration(seconds: float) -> str:
    """Formats a duration: "8 s", "2 min 5 s", "12 min", "1 h 20 min", "2 d 3 h".

    Args:
      seconds: the duration. It is rounded to seconds; from 10 minutes on it is
        truncated to minutes, and from a day on to hours.
    """
    total_seconds = round(seconds)
    if total_seconds < 60:
        return f"{total_seconds} s"
    minutes, remainder = divmod(total_seconds, 60)
    if minutes < 10 and remainder:
        return f"{minutes} min {remainder} s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes} min"
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    first = 0 if days else 1
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2] if n)


def control_characters(text: str) -> list[str]:
    """Returns the characters that could control a terminal, and line separators.

    Newlines and tabs are not among them.
    """
    kinds = ("Cc", "Cs", "Zl", "Zp")
    found = [c for c in text if unicodedata.category(c) in kinds]
    return [c for c in found if c not in "\n\t"]


def escape_controls(text: str) -> str:
    """Escapes the characters of `control_characters`, as JSON does."""
    codes = {ord(c): f"\\u{ord(c):04x}" for c in control_characters(text)}
    return text.translate(codes)
