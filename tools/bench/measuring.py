"""Measures time and memory of contenders, each in its own process.

Because each process is new, its peak memory as counted by the operating system is that
of the contender alone. Contenders run one at a time and alternate, so that other load
on the machine affects all of them.
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
CLEAR_REFS = pathlib.Path("/proc/self/clear_refs")
OOM_SCORE_ADJ = pathlib.Path("/proc/self/oom_score_adj")


@dataclasses.dataclass(frozen=True)
class Task:
    """The work of a contender.

    Attributes:
        run: performs the work once.
        results: maps the return value of `run` to the arrays that are compared
            between contenders.
        repeats: number of consecutive calls in one timed run, whose mean counts; for
            work so short that caches and thread wake-ups would dominate.
    """

    run: Callable[[], Any]
    results: Callable[[Any], Arrays] = lambda value: {}
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class Contender:
    """An implementation to be measured.

    Attributes:
        name: name in the table.
        make: module-level function that creates the task, so that it can be pickled.
        arguments: arguments of `make`; must be picklable.
    """

    name: str
    make: Callable[..., Task]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Measurement of a contender.

    Attributes:
        name: name of the contender.
        seconds: duration of each timed run.
        peak_bytes: peak resident memory of its process.
        start_bytes: peak resident memory before the first run.
        results: results of its first run.
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
    """Returns the peak resident memory of a process.

    `getrusage` is not used because it inherits the peak of the parent process.

    Args:
        pid: ID of the process; this one if None.

    Returns:
        Bytes; 0 for another process that has ended.

    Raises:
        StoppedError: if the operating system is not Linux.
    """
    if not STATUS.is_file():
        raise command.StoppedError(f"peak memory needs Linux: there is no {STATUS}")
    path = STATUS if pid is None else pathlib.Path(f"/proc/{pid}/status")
    try:
        text = path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = dict(line.split(":", 1) for line in text.splitlines())
    # The line is missing for a process that is exiting.
    return int(lines.get("VmHWM", "0 kB").removesuffix("kB")) * 1024


class Worker:
    """A process for one contender, which runs until it is closed; GPUs are hidden.

    Args:
        contender: contender to run.
        threads: number of threads that each library may use.

    Raises:
        StoppedError: if the process exits prematurely, here or in `run`.
    """

    def __init__(self, contender: Contender, threads: int):
        self._name = contender.name
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        arguments = (remote, contender.make, dict(contender.arguments), threads)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        remote.close()
        self.start_bytes: int = self._receive()

    def run(self, results: pathlib.Path | None = None) -> tuple[float, int]:
        """Runs the task once.

        Args:
            results: `.npz` file to write the results to, or None.

        Returns:
            The mean duration of a call in seconds and the peak memory so far in bytes.
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
                f"{self._process.exitcode} (-9: killed, probably out of memory)"
            ) from error


def _work(
    connection: Connection,
    make: Callable[..., Task],
    arguments: Mapping[str, Any],
    threads: int,
) -> None:
    """Runs in the other process: creates the task and runs it on request."""
    # The parent process receives the signal as well, and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # No library that reads these has been imported yet.
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):
        os.environ[name] = str(threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    # If memory runs out, the kernel should kill this process before any other.
    if OOM_SCORE_ADJ.is_file():
        OOM_SCORE_ADJ.write_text("1000")
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
            # Writing results took memory, so that the peak is reset.
            CLEAR_REFS.write_text("5")
        connection.send((seconds, peak))


def measure(
    contenders: Sequence[Contender],
    *,
    runs: int,
    warm_ups: int = 1,
    threads: int | None = None,
    together: bool = True,
) -> list[Measurement]:
    """Measures contenders.

    Args:
        contenders: at least one contender.
        runs: timed runs of each.
        warm_ups: untimed runs of each before the timed ones.
        threads: see `Worker`; all cores if None.
        together: whether contenders alternate, run by run, with all processes alive;
            otherwise they run one after another, for tasks that need much memory.

    Raises:
        StoppedError: if a process exits prematurely.
    """
    threads = threads or machine.num_cores()
    groups = [contenders] if together else [[contender] for contender in contenders]
    measured = []
    for group in groups:
        workers = []
        try:
            for contender in group:
                workers.append(Worker(contender, threads))
            measured += _alternate(group, workers, runs, warm_ups)
        finally:
            for worker in workers:
                worker.close()
    return measured


def _alternate(contenders, workers, runs, warm_ups) -> list[Measurement]:
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
    """Checks that the results of all contenders agree with those of the first.

    Args:
        measurements: measurements whose results have the same names.
        tolerance: largest allowed difference, relative to the largest absolute value.

    Returns:
        The largest relative difference.

    Raises:
        StoppedError: if a difference exceeds the tolerance, because the times are then
            not comparable.
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
            difference = float("inf")
            if found.shape == expected.shape:
                scale = max(float(np.abs(expected).max()), 1e-30)
                difference = float(np.abs(found - expected).max()) / scale
            if not difference <= tolerance:
                raise command.StoppedError(
                    f"{name}: expected {reference.name} and {other.name} to agree to "
                    f"{tolerance:g} of the largest value. Received: {difference:.2g}"
                )
            largest = max(largest, difference)
    return largest
