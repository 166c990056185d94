"""Signals that stop a command: Ctrl-C, and those that cluster managers send.

Slurm sends SIGTERM before a time limit (or the signal given by `--signal`, often
SIGUSR1); Kubernetes and providers of spot instances send SIGTERM. A command that has
nothing to save ends with `SignalInterrupt` (`raised`). Training records the signal and
stops once its state can be saved (`DeferredSignals`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

STOP_SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGUSR1")
    # Windows has no SIGUSR1.
    if hasattr(signal, name)
)
# Wrappers such as `timeout` and `make` forward a signal that this process has already
# received from the terminal or its process group.
_SAME_REQUEST_SECONDS = 1.0


class SignalInterrupt(KeyboardInterrupt):  # noqa: N818 (as KeyboardInterrupt)
    """Raised by a stop signal; code that cleans up after Ctrl-C handles it as well.

    Attributes:
      number: the signal.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number.name)
        self.number = number


def exit_status(number: int) -> int:
    """Returns the exit status of a command ended by a signal, as shells define it."""
    return 128 + number


def ignore() -> None:
    """Ignores these signals, in a process that ends together with another one."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def note_interrupts() -> list[int]:
    """Returns a list that records each Ctrl-C; `KeyboardInterrupt` is raised as before.

    Native code may convert this exception to a different one, as pydantic's does.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    return received


@contextlib.contextmanager
def raised() -> Iterator[list[signal.Signals]]:
    """Raises `SignalInterrupt` in the main thread when a signal arrives.

    Afterwards signals end the process immediately: an exception would only disturb the
    interpreter while it shuts down.

    Yields:
      The signals that have arrived; see `note_interrupts`.
    """
    received: list[signal.Signals] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(signal.Signals(number))
        raise SignalInterrupt(received[-1])

    for number in STOP_SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def reinstall() -> None:
    """Installs Python's handlers again after a library has replaced them.

    TensorFlow receives SIGTERM itself once it connects several machines.
    """
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            handler = signal.getsignal(number)
            # None if a program that embeds Python has installed it.
            if handler is not None:
                signal.signal(number, handler)


class DeferredSignals:
    """Context manager that records stop signals instead of raising an exception.

    A thread receives them, so that they are answered while the main thread runs native
    code. Ctrl-C ends the process immediately if the first signal was received at least
    a second before.

    Args:
      on_signal: called in that thread with the first signal and False, and with one
        that ends the process and True.
      clock: returns seconds, as `time.monotonic` does.

    Attributes:
      received: the first signal; None before it arrives.
    """

    def __init__(
        self,
        on_signal: Callable[[signal.Signals, bool], None] = lambda number, ends: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.received: signal.Signals | None = None
        self._on_signal = on_signal
        self._clock = clock
        self._first_at: float | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> DeferredSignals:
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        thread = threading.Thread(target=self._answer, args=(receiver,), daemon=True)
        thread.start()
        # Closing the sender ends the thread.
        self._open.callback(receiver.close)
        self._open.callback(thread.join)
        self._open.callback(sender.close)
        for number in STOP_SIGNALS:
            before = signal.signal(number, self._note)
            self._open.callback(signal.signal, number, before)
        wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        self._open.callback(signal.set_wakeup_fd, wakeup)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Records a signal. Runs in the main thread between two instructions."""
        del frame
        self.received = self.received or signal.Signals(number)

    def _answer(self, receiver: socket.socket) -> None:
        """Reads the number of each signal as it arrives, stop signal or not."""
        while received := receiver.recv(1):
            if received[0] not in STOP_SIGNALS:
                continue
            number, now = signal.Signals(received[0]), self._clock()
            if self._first_at is None:
                self._first_at = now
                self.received = self.received or number
                self._on_signal(number, False)
            elif (
                number == signal.SIGINT
                and now - self._first_at >= _SAME_REQUEST_SECONDS
            ):
                self._on_signal(number, True)
                os._exit(exit_status(number))
