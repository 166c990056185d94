"""What ends a command with a message instead of a traceback."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

from u2net_tf.wording import first_few

# Longer lines are cut in a message: nobody reads a line of 64,000 characters.
_MAX_CHARACTERS = 400
_MAX_VALUES = 5


class InputError(ValueError):
    """Input that cannot be used; its message is formatted here and nowhere else.

    Settings are written in backquotes, as in Keras' messages; a command shows them as
    flags (`` `batch_size` `` as ``--batch_size``).

    Args:
      where: the file, and the place in it where there is one
        (``plan.json: domains[2].spacing_mm``), or a setting in backquotes.
      expected: noun phrase that follows "expected".
      received: what was there instead.
      hint: sentence without a full stop that says what to do about it.
    """

    def __init__(
        self,
        where: object,
        *,
        expected: str,
        received: object,
        hint: str = "",
    ):
        self.where = _on_one_line(str(where))
        self.expected = expected
        self.received = received
        self.hint = hint
        problem = self.problem
        super().__init__(": ".join(filter(None, (self.where, problem))))

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword arguments are not pickled otherwise, as worker processes need it.
        arguments: dict[str, Any] = {
            "expected": self.expected,
            "received": self.received,
            "hint": self.hint,
        }
        return functools.partial(type(self), **arguments), (self.where,)

    @property
    def problem(self) -> str:
        """The message without `where`, for a list that names the file by itself."""
        text = f"expected {_shown(self.expected)}. Received: {_shown(self.received)}"
        return f"{text}. {self.hint}" if self.hint else text

    def within(
        self, where: object, *, separator: str = ": ", hint: str = ""
    ) -> InputError:
        """The same error, placed more exactly: `where` precedes its own place.

        Args:
          where: as of the class.
          separator: between the two places.
          hint: replaces its own, if given.
        """
        return type(self)(
            f"{where}{separator}{self.where}" if self.where else where,
            expected=self.expected,
            received=self.received,
            hint=hint or self.hint,
        )


def _on_one_line(text: str) -> str:
    """The text with escapes for newlines and the like, which a file's name may hold."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _shown(value: object) -> str:
    """A value as text; the first few of many values, and the heads of long lines."""
    is_text = isinstance(value, str | bytes)
    if isinstance(value, Collection) and not is_text and len(value) > _MAX_VALUES:
        value = first_few(list(value), limit=_MAX_VALUES)
    lines = str(value).split("\n")
    return "\n".join(
        line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}…"
        for line in lines
    )


class StoppedError(RuntimeError):
    """A run that cannot go on: says where it stopped and what is kept."""


class StoppedEarlyError(StoppedError):
    """A run that was asked to stop before its end, and can be resumed.

    Args:
      message: says why it stopped and what is kept.
      exit_status: that of a command: 128 and the signal, or 75 (EX_TEMPFAIL of
        sysexits.h: to be tried again) after a time limit.
    """

    def __init__(self, message: str, *, exit_status: int):
        super().__init__(message)
        self.exit_status = exit_status

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), exit_status=self.exit_status), self.args
