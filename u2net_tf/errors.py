"""Errors that end a command with a message instead of a traceback."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

from u2net_tf.wording import escape_controls, first_few

# Longer lines are truncated: nobody reads a line of 64,000 characters.
_MAX_CHARACTERS = 400
_MAX_VALUES = 5


class InputError(ValueError):
    """Input that cannot be used; its message is formatted only here.

    Settings are written in backquotes, as in Keras' messages; a command shows them as
    flags (`` `batch_size` `` as ``--batch_size``).

    Args:
      where: the file, with the position in it if there is one
        (``plan.json: domains[2].spacing_mm``), or a setting in backquotes.
      expected: noun phrase that follows "expected".
      received: what was received instead.
      hint: how to fix it, a sentence without the final period.
    """

    def __init__(
        self,
        where: object,
        *,
        expected: str,
        received: object,
        hint: str = "",
    ):
        self.where = _escape_unprintable(str(where))
        self.expected = expected
        self.received = received
        self.hint = hint
        super().__init__(": ".join(filter(None, (self.where, self.problem))))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions do not pickle keyword arguments, but worker processes need them.
        arguments: dict[str, Any] = {
            "expected": self.expected,
            "received": self.received,
            "hint": self.hint,
        }
        return functools.partial(type(self), **arguments), (self.where,)

    @property
    def problem(self) -> str:
        """The message without `where`, for lists that already name the file."""
        expected, received = _abbreviated(self.expected), _abbreviated(self.received)
        text = f"expected {expected}. Received: {received}"
        return f"{text}. {self.hint}" if self.hint else text

    def within(
        self, where: object, *, separator: str = ": ", hint: str = ""
    ) -> InputError:
        """Returns the same error with a location that precedes its own.

        Args:
          where: the outer location, as for the class.
          separator: text between the two locations.
          hint: replaces the hint of this error, if not empty.
        """
        return type(self)(
            f"{where}{separator}{self.where}" if self.where else where,
            expected=self.expected,
            received=self.received,
            hint=hint or self.hint,
        )


def _escape_unprintable(text: str) -> str:
    """Escapes newlines and other control characters, which file names may contain."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _abbreviated(value: object) -> str:
    """Formats a value, with long collections and long lines abbreviated.

    Control characters, which values from files may contain, are escaped.
    """
    is_text = isinstance(value, str | bytes)
    if isinstance(value, Collection) and not is_text and len(value) > _MAX_VALUES:
        value = first_few(list(value), limit=_MAX_VALUES)
    lines = escape_controls(str(value)).split("\n")
    return "\n".join(
        line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}…"
        for line in lines
    )


class StoppedError(RuntimeError):
    """A run that cannot continue; says where it stopped and what was kept."""


class StoppedEarlyError(StoppedError):
    """A run that stopped early on request and can be resumed.

    Args:
      message: says why it stopped and what was kept.
      exit_status: exit status of a command: 128 plus the signal number, or 75
        (EX_TEMPFAIL of sysexits.h: try again later) after a time limit.
    """

    def __init__(self, message: str, *, exit_status: int):
        super().__init__(message)
        self.exit_status = exit_status

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), exit_status=self.exit_status), self.args
