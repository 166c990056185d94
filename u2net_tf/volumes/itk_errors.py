"""What errors of ITK say."""

from __future__ import annotations

import re

# "itk::ERROR: NrrdImageIO(0x55e9…): ", a place in memory.
_PREFIX = re.compile(r"(\S*ERROR: )*(ITK ERROR: )?(\w+\(0x[0-9a-f]+\): )?")


def last_line(error: Exception) -> str:
    """What an error of ITK is about, without where in ITK it was raised."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    starts = [index for index, line in enumerate(lines) if "ERROR: " in line]
    # A message may go on for several lines, as that of a matrix does.
    message = " ".join(lines[starts[0] :] if starts else lines[-1:])
    return _PREFIX.sub("", message)[:200] or type(error).__name__
