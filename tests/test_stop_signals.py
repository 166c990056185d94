import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from u2net_tf import stop_signals
from u2net_tf.stop_signals import STOP_SIGNALS, DeferredSignals, SignalInterrupt

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def handlers():
    """Restores those of pytest afterwards."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


class TestRaised:
    @pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
    def test_is_an_interrupt_that_knows_its_signal(self, number):
        with stop_signals.raised(), pytest.raises(SignalInterrupt) as caught:
            send(number)
        assert caught.value.number == number
        assert isinstance(caught.value, KeyboardInterrupt)

    def test_afterwards_they_end_the_process(self):
        with stop_signals.raised():
            pass
        assert {signal.getsignal(number) for number in STOP_SIGNALS} == {signal.SIG_DFL}


class TestDeferred:
    @pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
    def test_are_recorded(self, number, handlers):
        answered = threading.Event()
        received = []

        def answer(number, ends):
            received.append((number, ends))
            answered.set()

        with DeferredSignals(answer) as signals:
            assert signals.received is None
            send(number)
            assert signals.received is number
            assert answered.wait(60)
        assert received == [(number, False)]
        assert {n: signal.getsignal(n) for n in STOP_SIGNALS} == handlers

    def test_the_first_counts(self):
        with DeferredSignals() as signals:
            send(signal.SIGTERM)
            send(signal.SIGUSR1)
            # Entered again, as for the next model of the same process.
        with signals:
            assert signals.received is signal.SIGTERM

    def test_other_signals_are_left_alone(self):
        before = signal.signal(signal.SIGUSR2, lambda *arguments: None)
        try:
            with DeferredSignals() as signals:
                send(signal.SIGUSR2)
        finally:
            signal.signal(signal.SIGUSR2, before)
        assert signals.received is None


# The arguments are signals to send, one second apart by the process's own clock; one
# that starts with "=" arrives together with the previous one. The next one is sent once
# the time of the previous one has been read; the end waits for the last one.
SCRIPT = """
import os, signal, sys, threading
from u2net_tf.stop_signals import DeferredSignals

now, is_read = [0], threading.Semaphore(0)
def clock():
    time = now[0]
    is_read.release()
    return time

def show(number, ends):
    print(number.name, ends, file=sys.stderr, flush=True)

with DeferredSignals(show, clock=clock) as signals:
    for name in sys.argv[1:]:
        now[0] += not name.startswith("=")
        os.kill(os.getpid(), signal.Signals[name.lstrip("=")])
        is_read.acquire()
print(signals.received.name)
"""


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["SIGINT", "SIGINT"], 130),
        (["SIGTERM", "SIGINT"], 130),
        # A wrapper forwards the signal that the terminal has already sent.
        (["SIGINT", "=SIGINT"], 0),
        (["SIGTERM", "SIGTERM", "SIGUSR1"], 0),
    ],
    ids=str,
)
def test_a_second_ctrl_c_ends_the_process(names, status):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == status
    assert done.stdout == ("" if status else f"{names[0]}\n")
    lines = [f"{names[0]} False", "SIGINT True"]
    assert done.stderr.splitlines() == (lines if status else lines[:1])


def test_handlers_that_a_library_replaced_are_installed_again():
    received = []
    before = signal.signal(
        signal.SIGUSR1, lambda number, frame: received.append(number)
    )
    try:
        # As native code does, of which Python does not know.
        ctypes.CDLL(None).signal(signal.SIGUSR1, ctypes.c_void_p(1))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not received
        stop_signals.reinstall()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert received == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
