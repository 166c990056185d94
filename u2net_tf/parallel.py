"""Mapping of functions over cases with any `concurrent.futures.Executor`.

    with parallel.worker_processes(4) as executor:
        for case, result in parallel.map_cases(function, cases, executor):
            ...

Processes suit work whose results are small. Threads suit work that spends its time in
native code and returns large arrays, which need not be copied.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

from absl import logging

from u2net_tf import machine
from u2net_tf.errors import StoppedError

Case = TypeVar("Case")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Case], Result],
    cases: Iterable[Case],
    executor: Executor | None,
    *,
    max_pending: int | None = None,
) -> Generator[tuple[Case, Result], None, None]:
    """Calls a function for each case and yields the results as they finish.

    Closing the iterator cancels cases that no worker has started.

    Args:
      function: takes a case. Worker processes import it, so it must be importable.
      cases: arguments of the function, one per call.
      executor: calls the function; None calls it in this thread, when its result is
        requested.
      max_pending: maximum number of submitted cases whose results have not been taken.
        This bounds the memory of results; None submits all cases immediately.

    Yields:
      A case and its result.

    Raises:
      Exception: any raised by the function, when its result is taken; and any raised by
        an executor that accepts no more cases, after the available results.
    """
    if executor is None:
        for case in cases:
            yield case, function(case)
        return
    remaining = iter(cases)
    pending: dict[Future[Result], Case] = {}
    finished: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()

    submit_errors: list[Exception] = []

    def submit(limit: int | None) -> None:
        for case in itertools.islice(remaining, limit):
            future = executor.submit(function, case)
            pending[future] = case
            future.add_done_callback(finished.put)

    def take() -> tuple[Case, Result]:
        # A separate function, so that only the caller keeps a reference to the result.
        future = finished.get()
        outcome = pending.pop(future), future.result()
        if max_pending is not None and not submit_errors:
            refill()
        return outcome

    def refill() -> None:
        try:
            submit(1)
        except Exception as error:
            # A result has been taken, and others may be available: these come first.
            submit_errors.append(error)

    try:
        submit(max_pending)
        while pending:
            yield take()
        if submit_errors:
            raise submit_errors[0]
    except concurrent.futures.BrokenExecutor:
        # The pool is about to fail the other futures, and cannot fail cancelled ones.
        pending.clear()
        raise
    finally:
        for future in pending:
            future.cancel()


def workers(
    executor: Executor | None,
    num_workers: int | None,
    num_cases: int,
    *,
    share_cores: bool = False,
    verbosity: int | None = None,
    where: str = "",
) -> contextlib.AbstractContextManager[Executor]:
    """Returns the given executor, or `worker_processes` for a number of cases.

    Args:
      executor: left open after use; None for processes on this machine.
      num_workers: number of processes, at most one per case; None for one per core.
      num_cases: number of cases.
      share_cores: whether to divide the cores among the processes as threads; otherwise
        each process has a single thread.
      verbosity: see `worker_processes`.
      where: see `worker_processes`.
    """
    if executor is not None:
        return contextlib.nullcontext(executor)
    cores = machine.num_cores()
    num_workers = max(1, min(num_workers or cores, num_cases))
    return worker_processes(
        num_workers,
        num_threads=max(1, cores // num_workers) if share_cores else 1,
        verbosity=verbosity,
        where=where,
    )


@contextlib.contextmanager
def worker_processes(
    num_workers: int,
    *,
    num_threads: int = 1,
    verbosity: int | None = None,
    where: str = "",
) -> Iterator[Executor]:
    """Opens a pool of spawned processes.

    On Ctrl-C the processes are terminated immediately. After any other error, cases in
    progress are finished first, but their results are lost, unless the function itself
    writes them to where a rerun finds them.

    Args:
      num_workers: maximum number of processes.
      num_threads: threads of NumPy and SimpleITK in each process.
      verbosity: absl's log level in each process; None for that of this process.
      where: what is being processed, for the error message; "" to omit it.

    Raises:
      StoppedError: if a process is killed.
    """
    if verbosity is None:
        verbosity = logging.get_verbosity()
    earlier_children = multiprocessing.active_children()
    executor = concurrent.futures.ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=initialize_worker,
        initargs=(num_threads, verbosity),
    )
    try:
        with _shut_down_after_use(executor):
            yield executor
    except concurrent.futures.process.BrokenProcessPool as error:
        place = f"{where}: " if where else ""
        raise StoppedError(
            f"{place}a worker process was killed, most likely for lack of memory with "
            f"`num_workers`={num_workers}; rerun the same command with fewer workers "
            "to resume"
        ) from error
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            if process not in earlier_children:
                process.terminate()
        raise


@contextlib.contextmanager
def map_ahead(
    function: Callable[[Case], Result],
    cases: Sequence[Case],
    *,
    num_workers: int,
    executor: Executor | None = None,
) -> Iterator[Iterator[tuple[Case, Result]]]:
    """Like `map_cases`, but computes results before they are requested.

    While one result is in use, `num_workers` others are being computed or are ready. On
    Ctrl-C threads of this process are not waited for, but the interpreter exits after
    them: a thread cannot be terminated.

    Args:
      function: takes a case.
      cases: arguments of the function, one per call.
      num_workers: number of cases to compute ahead, one thread each unless there is an
        `executor`; with 0, or for a single case, results are computed in this thread
        when they are requested.
      executor: calls the function, and is left open; None for threads of this process.
    """
    if num_workers == 0 or len(cases) < 2:
        yield map_cases(function, cases, None)
        return
    if executor is not None:
        results = map_cases(function, cases, executor, max_pending=num_workers)
        with contextlib.closing(results):
            yield results
        return
    threads = concurrent.futures.ThreadPoolExecutor(num_workers)
    with _shut_down_after_use(threads):
        yield map_cases(function, cases, threads, max_pending=num_workers)


@contextlib.contextmanager
def _shut_down_after_use(executor: Executor) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


def initialize_worker(num_threads: int, verbosity: int) -> None:
    """Prepares a worker process, which from then on exits with its parent.

    If the parent were killed, its workers would otherwise wait forever, each with the
    memory of its last case.

    Args:
      num_threads: threads of NumPy and SimpleITK.
      verbosity: absl's log level.
    """
    # Ctrl-C reaches all processes of a terminal; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # NumPy reads these when it is imported, and SimpleITK imports it.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(num_threads)
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(num_threads)
    logging.set_verbosity(verbosity)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
