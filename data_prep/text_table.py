"""Tables that line up on a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a rule below its header; numbers to the right, texts to the left.

    Args:
      header: one title per column.
      rows: what each column holds; anything that `str` takes.
    """
    texts = [[str(cell) for cell in row] for row in rows]
    columns = list(zip(header, *texts, strict=True))
    widths = [max(_width(text) for text in column) for column in columns]
    numeric = [
        bool(rows) and all(isinstance(row[c], int | float) for row in rows)
        for c in range(len(header))
    ]
    lines = [list(header), ["─" * width for width in widths], *texts]
    return "\n".join(
        "  ".join(
            " " * (width - _width(text)) + text
            if right
            else text + " " * (width - _width(text))
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _width(text: str) -> int:
    return sum(unicodedata.combining(letter) == 0 for letter in text)
