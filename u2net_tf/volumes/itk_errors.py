"""What errors of ITK say."""

from __future__ import annotations


def last_line(error: Exception) -> str:
    """The last line of an error of ITK, which says what it is about."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:200]
