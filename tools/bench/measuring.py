"""Contenders, each in a process of its own: their times by turns, their memory.

A process is fresh, so what the operating system counts as its peak memory is what this
contender took and nothing else. Only one of them works at a time, and they take turns,
so that whatever else goes on in the machine slows all of them.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pathlib
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from u2net_tf import command, machine

Arrays = Mapping[str, np.ndarray]
STATUS = pathlib.Path("/proc/self/status")
FORGET_PEAK = pathlib.Path("/proc/self/clear_refs")
FIRST_TO_END = pathlib.Path("/proc/self/oom_score_adj")


@dataclasses.dataclass(frozen=True)
class Task:
    """The work of a contender.

    Attributes:
        run: does it once and returns when it is done.
        results: from what `run` returned, the arrays to compare contenders by.
        repeats: how often in a row makes one timed run, of which the mean counts; for
            what is so short that caches and sleeping threads would be what is timed.
    """

    run: Callable[[], Any]
    results: Callable[[Any], Arrays] = lambda value: {}
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class Contender:
    """One of those that are measured.

    Attributes:
        name: for the table.
        make: function of a module, for another process to find it; makes the task.
        arguments: of `make`; whatever can be pickled.
    """

    name: str
    make: Callable[..., Task]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of a contender.

    Attributes:
        name: of the contender.
        seconds: of each timed run.
        peak_bytes: most memory that its process held, in RAM.
        start_bytes: of these, what it had needed before the first run.
        results: of its first run.
    """

    name: str
    seconds: tuple[float, ...]
    peak_bytes: int
    start_bytes: int
    results: Arrays

    @property
    def median(self) -> float:
        """Median of `seconds`."""
        return statistics.median(self.seconds)


def peak_memory_bytes(pid: int | None = None) -> int:
    """Most memory that a process has held in RAM.

    Not `getrusage`, which begins with the peak of the process that started this one.

    Args:
        pid: of the process; this one if None.

    Returns:
        Bytes; 0 for another process that has ended.

    Raises:
        StoppedError: if the operating system does not tell, as Linux does.
    """
    if not STATUS.is_file():
        raise command.StoppedError(f"peak memory needs Linux: there is no {STATUS}")
    path = STATUS if pid is None else pathlib.Path(f"/proc/{pid}/status")
    try:
        text = path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = dict(line.split(":", 1) for line in text.splitlines())
    # One that is ending has no such line.
    return int(lines.get("VmHWM", "0 kB").removesuffix("kB")) * 1024


class Worker:
    """A process of its own for one contender, up from here until it is closed.

    Args:
        contender: what to run.
        threads: how many each library may use; GPUs are hidden.

    Raises:
        StoppedError: from here on, if the process ends by itself.
    """

    def __init__(self, contender: Contender, threads: int):
        self._name = contender.name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, contender.make, dict(contender.arguments), threads)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.start_bytes: int = self._receive()

    def run(self, results: pathlib.Path | None = None) -> tuple[float, int]:
        """Runs the task once.

        Args:
            results: where to write its results, an `.npz`; nowhere if None.

        Returns:
            The seconds that it took once and the most bytes held until then.
        """
        self._connection.send(results)
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _receive(self):
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise command.StoppedError(
                f"{self._name}: its process ended with status "
                f"{self._process.exitcode} (-9: killed, likely for want of memory)"
            ) from error


def _work(
    connection: Connection,
    make: Callable[..., Task],
    arguments: Mapping[str, Any],
    threads: int,
) -> None:
    """Runs in the other process: makes the task, then answers until it is ended."""
    # The other process is asked to stop as well, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing that reads these has been imported yet.
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):
        os.environ[name] = str(threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    # Where memory runs out, this process is to end and none of somebody else.
    if FIRST_TO_END.is_file():
        FIRST_TO_END.write_text("1000")
    task = make(**arguments)
    peak = peak_memory_bytes()
    connection.send(peak)
    while True:
        results = connection.recv()
        started = time.perf_counter()
        for _ in range(task.repeats):
            value = task.run()
        seconds = (time.perf_counter() - started) / task.repeats
        peak = max(peak, peak_memory_bytes())
        if results is not None:
            np.savez(results, **task.results(value))
        del value
        if results is not None:
            # That took memory of its own; the peak starts anew.
            FORGET_PEAK.write_text("5")
        connection.send((seconds, peak))


def measure(
    contenders: Sequence[Contender],
    *,
    runs: int,
    warm_ups: int = 1,
    threads: int | None = None,
    together: bool = True,
) -> list[Measurement]:
    """Measures contenders side by side.

    Args:
        contenders: at least one.
        runs: timed runs of each.
        warm_ups: runs before these.
        threads: see `Worker`; all cores if None.
        together: by turns, the first, the second … and again, with all processes up;
            otherwise one process after the other, for tasks that fill the memory.

    Raises:
        StoppedError: if a process ends by itself.
    """
    threads = threads or machine.num_cores()
    groups = [contenders] if together else [[contender] for contender in contenders]
    measured = []
    for group in groups:
        workers = []
        try:
            for contender in group:
                workers.append(Worker(contender, threads))
            measured += _take_turns(group, workers, runs, warm_ups)
        finally:
            for worker in workers:
                worker.close()
    return measured


def _take_turns(contenders, workers, runs, warm_ups) -> list[Measurement]:
    seconds = [[] for _ in workers]
    peaks = [0 for _ in workers]
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{i}.npz" for i in range(len(workers))]
        for turn in range(warm_ups + runs):
            for index, worker in enumerate(workers):
                first = turn == 0
                taken, peaks[index] = worker.run(paths[index] if first else None)
                if turn >= warm_ups:
                    seconds[index].append(taken)
        results = []
        for path in paths:
            with np.load(path) as archive:
                results.append(dict(archive))
    return [
        Measurement(contender.name, tuple(times), peak, worker.start_bytes, arrays)
        for contender, worker, times, peak, arrays in zip(
            contenders, workers, seconds, peaks, results, strict=True
        )
    ]


def check_agreement(measurements: Sequence[Measurement], tolerance: float) -> float:
    """Checks that all give the results of the first.

    Args:
        measurements: of contenders with results of the same names.
        tolerance: largest difference, as a share of the largest absolute value.

    Returns:
        The largest such share that was found.

    Raises:
        StoppedError: if two differ by more: then their times say nothing.
    """
    largest = 0.0
    reference = measurements[0]
    for other in measurements[1:]:
        if other.results.keys() != reference.results.keys():
            raise ValueError(
                f"expected results {sorted(reference.results)}. Received: "
                f"{sorted(other.results)} of {other.name}"
            )
        for name, expected in reference.results.items():
            found = other.results[name]
            share = float("inf")
            if found.shape == expected.shape:
                scale = max(float(np.abs(expected).max()), 1e-30)
                share = float(np.abs(found - expected).max()) / scale
            if not share <= tolerance:
                raise command.StoppedError(
                    f"{name}: expected {reference.name} and {other.name} to agree to "
                    f"{tolerance:g} of the largest value. Received: {share:.2g}"
                )
            largest = max(largest, share)
    return largest
