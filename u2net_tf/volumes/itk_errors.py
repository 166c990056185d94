"""Messages of ITK errors."""

from __future__ import annotations

import re

# "itk::ERROR: NrrdImageIO(0x55e9…): ", with a memory address.
_PREFIX = re.compile(r"(\S*ERROR: )*(ITK ERROR: )?(\w+\(0x[0-9a-f]+\): )?")


def last_line(error: Exception) -> str:
    """Returns the message of an ITK error, without its location in ITK."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    starts = [index for index, line in enumerate(lines) if "ERROR: " in line]
    # A message may span several lines, for example with a matrix.
    message = " ".join(lines[starts[0] :] if starts else lines[-1:])
    return _PREFIX.sub("", message)[:200] or type(error).__name__
