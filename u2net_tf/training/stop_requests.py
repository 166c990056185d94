"""Requests to stop a run early: a signal or a time limit."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

from absl import logging

from u2net_tf.stop_signals import DeferredSignals, exit_status
from u2net_tf.training.workers import Workers

# EX_TEMPFAIL of sysexits.h: the command should be rerun.
TIME_LIMIT_EXIT_STATUS = 75


class StopRequested(Exception):  # noqa: N818 (not an error)
    """Raised at a point where a run can be saved.

    Args:
      reason: the signal or setting that stopped the run.
      exit_status: exit status of the command.
    """

    def __init__(self, reason: str, exit_status: int):
        super().__init__(reason)
        self.reason = reason
        self.exit_status = exit_status


class StopRequests:
    """Checks whether a run has been asked to stop.

    Args:
      max_minutes: time limit, counted from now; 0 for no limit.
      signals: records received signals; None to leave signals alone, for example in a
        program that embeds training.
      clock: returns seconds; see `time.monotonic`.
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

    def deferring_signals(self) -> contextlib.AbstractContextManager[object]:
        """Returns a context in which signals are deferred."""
        return self._signals or contextlib.nullcontext()

    def request(self) -> StopRequested | None:
        """Returns the request to stop, if there is one."""
        received = self._signals.received if self._signals else None
        if received is not None:
            return StopRequested(received.name, exit_status(received))
        if self._deadline is not None and self._clock() >= self._deadline:
            reason = f"`max_minutes`={self._max_minutes:g}"
            return StopRequested(reason, TIME_LIMIT_EXIT_STATUS)
        return None

    def check(self) -> None:
        """Raises StopRequested if there is a request."""
        if request := self.request():
            raise request

    def check_all(self, workers: Workers, *, ignore_own: bool = False) -> None:
        """Raises StopRequested on all workers if any of them has a request.

        All workers call this at the same points of a run; it returns when all have.

        Args:
          workers: the workers of the run.
          ignore_own: whether to disregard the requests of this worker.

        Raises:
          StopRequested: with this worker's own reason, or else with the name of the
            first worker that has one.
          StoppedError: if another worker has ended.
        """
        own = None if ignore_own else self.request()
        statuses = workers.gather([own.exit_status if own else 0])[:, 0]
        if own is not None:
            raise own
        for index, status in enumerate(statuses.tolist()):
            if status:
                raise StopRequested(workers.cluster.name(index), status)


def from_command(max_minutes: float) -> StopRequests:
    """Returns the stop requests of a training command: signals and a time limit."""
    return StopRequests(max_minutes, signals=DeferredSignals(_log_signal))


def _log_signal(number: signal.Signals, ends: bool) -> None:
    if ends:
        logging.warning("received %s again: ending without saving", number.name)
        return
    logging.info(
        "received %s: finishing the current step and saving a checkpoint (Ctrl-C exits "
        "immediately, without saving)",
        number.name,
    )
