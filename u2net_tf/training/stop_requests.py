"""Requests to end a run before its end: a signal, or a limit of its time."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

from absl import logging

from u2net_tf.stop_signals import DeferredSignals, exit_status

# EX_TEMPFAIL of sysexits.h: a command that is to be run again.
TIME_IS_UP = 75


class StopRequested(Exception):  # noqa: N818 (no error)
    """Raised where a run can be saved.

    Args:
      reason: what it was stopped by.
      exit_status: exit status of the command.
    """

    def __init__(self, reason: str, exit_status: int):
        super().__init__(reason)
        self.reason = reason
        self.exit_status = exit_status


class StopRequests:
    """Tells whether a run is asked to stop.

    Args:
      max_minutes: time from now on after which it is; 0 for no limit.
      signals: notes the signals that ask; None to leave signals alone, as in a
        program of which training is a part.
      clock: seconds, as of `time.monotonic`.
    """

    def __init__(
        self,
        max_minutes: float = 0.0,
        *,
        signals: DeferredSignals | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._max_minutes = max_minutes
        self._clock = clock
        self._deadline = clock() + 60 * max_minutes if max_minutes else None
        self._signals = signals

    def heard(self) -> contextlib.AbstractContextManager[object]:
        """Defers signals while it is open."""
        return self._signals or contextlib.nullcontext()

    def check(self) -> None:
        """Raises StopRequested if there is a request."""
        received = self._signals.received if self._signals else None
        if received is not None:
            raise StopRequested(received.name, exit_status(received))
        if self._deadline is not None and self._clock() >= self._deadline:
            reason = f"`max_minutes`={self._max_minutes:g}"
            raise StopRequested(reason, TIME_IS_UP)


def from_command(max_minutes: float) -> StopRequests:
    """Returns those of a command that trains: signals, and the limit of its time."""
    return StopRequests(max_minutes, signals=DeferredSignals(_log_signal))


def _log_signal(number: signal.Signals, ends: bool) -> None:
    if ends:
        logging.warning("received %s again: ending without saving", number.name)
        return
    logging.info(
        "received %s: the running step is finished and saved (Ctrl-C ends at once, "
        "without saving)",
        number.name,
    )
