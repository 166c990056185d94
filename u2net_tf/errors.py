"""What ends a command with a message instead of a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: names the file or flag, what was expected and what was found."""


class StoppedError(RuntimeError):
    """A run that cannot go on: says where it stopped and what is kept."""
