"""What ends a command with a message instead of a traceback."""

from __future__ import annotations


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
        expected: str = "",
        received: object = "",
        hint: str = "",
    ):
        message = str(where)
        if expected:
            message = f"{where}: expected {expected}. Received: {received}"
        super().__init__(f"{message}. {hint}" if hint else message)
        self.where = str(where)
        self.expected = expected
        self.received = received
        self.hint = hint

    def within(self, where: object) -> InputError:
        """The same error, placed more exactly: `where` precedes its own place."""
        return type(self)(
            f"{where}: {self.where}",
            expected=self.expected,
            received=self.received,
            hint=self.hint,
        )


class StoppedError(RuntimeError):
    """A run that cannot go on: says where it stopped and what is kept."""
