import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from absl import logging
from killed_worker import end_process
from reading_ahead import PicklingExecutor

from u2net_tf import parallel
from u2net_tf.errors import InputError, StoppedError

ROOT = pathlib.Path(__file__).parents[1]
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")


class RecordingExecutor(concurrent.futures.Executor):
    """Records what is submitted; a test decides what finishes, and when."""

    def __init__(self):
        self.futures = {}
        self._submitted = threading.Condition()

    def submit(self, function, case):
        with self._submitted:
            self.futures[case] = concurrent.futures.Future()
            self._submitted.notify_all()
        return self.futures[case]

    def finish(self, case, error=None):
        """Ends a case with its result or an error, once it has been submitted."""
        with self._submitted:
            assert self._submitted.wait_for(lambda: case in self.futures, 60)
        if error is None:
            self.futures[case].set_result(f"result of {case}")
        else:
            self.futures[case].set_exception(error)


class TestMapCases:
    def test_without_an_executor_cases_are_computed_lazily(self):
        seen = []
        found = parallel.map_cases(lambda case: seen.append(case), "abc", None)
        assert next(found) == ("a", None)
        assert seen == ["a"]
        assert [case for case, _ in found] == ["b", "c"]

    def test_results_are_yielded_as_they_finish(self):
        executor = RecordingExecutor()
        found = parallel.map_cases(str, "abc", executor)
        threading.Timer(0.05, executor.finish, "b").start()
        assert next(found) == ("b", "result of b")
        assert set(executor.futures) == set("abc")
        executor.finish("c")
        executor.finish("a")
        assert [case for case, _ in found] == ["c", "a"]

    @pytest.mark.parametrize("max_pending", [1, 2])
    def test_no_more_than_max_pending_are_submitted(self, max_pending):
        executor = RecordingExecutor()
        found = parallel.map_cases(str, "abcd", executor, max_pending=max_pending)
        threading.Timer(0.05, executor.finish, "a").start()
        next(found)
        # Another case replaces the one that was yielded.
        assert len(executor.futures) == 1 + max_pending

    def test_pending_cases_are_cancelled_after_an_error(self):
        executor = RecordingExecutor()
        found = parallel.map_cases(str, "ab", executor)
        error = InputError("a", expected="this", received="that")
        threading.Timer(0.05, executor.finish, ["a", error]).start()
        with pytest.raises(InputError, match="a: expected this"):
            next(found)
        assert executor.futures["b"].cancelled()

    def test_pending_cases_are_cancelled_when_the_iterator_is_closed(self):
        executor = RecordingExecutor()
        found = parallel.map_cases(str, "ab", executor)
        threading.Timer(0.05, executor.finish, "a").start()
        next(found)
        found.close()
        assert executor.futures["b"].cancelled()

    def test_a_broken_executor_ends_its_futures_itself(self):
        """The standard library's fails if one was cancelled in the meantime."""
        executor = RecordingExecutor()
        found = parallel.map_cases(str, "ab", executor)
        error = concurrent.futures.BrokenExecutor()
        threading.Timer(0.05, executor.finish, ["a", error]).start()
        with pytest.raises(concurrent.futures.BrokenExecutor):
            next(found)
        assert not executor.futures["b"].cancelled()

    @pytest.mark.parametrize("error", [RuntimeError, concurrent.futures.BrokenExecutor])
    def test_finished_results_are_kept_when_submitting_fails(self, error):
        class TakesTwo(RecordingExecutor):
            def submit(self, function, case):
                if len(self.futures) == 2:
                    raise error("no more")
                future = super().submit(function, case)
                self.finish(case)
                return future

        found = parallel.map_cases(str, "abc", TakesTwo(), max_pending=2)
        assert [next(found)[0], next(found)[0]] == ["a", "b"]
        with pytest.raises(error, match="no more"):
            next(found)

    def test_only_the_result_in_use_is_kept(self):
        class Large:
            pass

        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            found = parallel.map_cases(lambda case: Large(), "ab", executor)
            _, result = next(found)
            reference = weakref.ref(result)
            del result
            # The thread drops its reference shortly after setting the result.
            end = time.monotonic() + 10
            while reference() is not None and time.monotonic() < end:
                time.sleep(0.01)
            assert reference() is None
            found.close()

    def test_without_cases(self):
        assert list(parallel.map_cases(str, [], RecordingExecutor())) == []


class TestMapAhead:
    @pytest.mark.parametrize(
        ("num_workers", "num_cases", "in_this_thread"),
        [(0, 3, True), (1, 1, True), (1, 2, False), (2, 3, False)],
    )
    def test_threads_are_used_only_to_read_ahead(
        self, num_workers, num_cases, in_this_thread
    ):
        cases = list(range(num_cases))
        with parallel.map_ahead(
            lambda case: threading.get_ident(), cases, num_workers=num_workers
        ) as found:
            threads = dict(found)
        assert list(threads) == cases or num_workers > 1
        assert (set(threads.values()) == {threading.get_ident()}) == in_this_thread

    @pytest.mark.parametrize("num_workers", [1, 2])
    def test_num_workers_cases_are_computed_while_one_is_in_use(self, num_workers):
        begun = []
        with parallel.map_ahead(
            begun.append, list("abcde"), num_workers=num_workers
        ) as found:
            next(found)
            end = time.monotonic() + 10
            while len(begun) < 1 + num_workers and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(0.1)
            assert len(begun) == 1 + num_workers

    @pytest.mark.parametrize(
        ("error", "waits"), [(KeyboardInterrupt, False), (RuntimeError, True)]
    )
    def test_ctrl_c_does_not_wait_for_a_thread(self, error, waits):
        begun, proceed, ended = (threading.Event() for _ in range(3))

        def function(case):
            if case:
                begun.set()
                proceed.wait(0.5 if waits else 30)
                ended.set()

        def use_one():
            with parallel.map_ahead(function, [0, 1, 2], num_workers=1) as found:
                next(found)
                begun.wait(10)
                raise error

        with pytest.raises(error):
            use_one()
        assert ended.is_set() == waits
        proceed.set()


class TestMapAheadWithExecutor:
    def test_uses_the_given_executor(self):
        with PicklingExecutor() as executor:
            with parallel.map_ahead(
                str, [1, 2, 3], num_workers=2, executor=executor
            ) as found:
                assert dict(found) == {1: "1", 2: "2", 3: "3"}
            # The executor is left open.
            assert executor.submit(str, 4).result() == "4"

    def test_pending_cases_are_cancelled_after_an_error(self):
        executor = RecordingExecutor()

        def use_one():
            with parallel.map_ahead(
                str, "abc", num_workers=2, executor=executor
            ) as found:
                threading.Timer(0.05, executor.finish, "a").start()
                next(found)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            use_one()
        assert executor.futures["b"].cancelled()
        assert executor.futures["c"].cancelled()


class TestWorkers:
    @pytest.mark.parametrize(
        ("num_workers", "num_cases", "share_cores", "expected"),
        [
            (None, 9, False, (6, 1)),
            (None, 2, True, (2, 3)),
            (9, 9, True, (9, 1)),
            (3, 0, False, (1, 1)),
        ],
    )
    def test_at_most_one_per_case_and_by_default_one_per_core(
        self, monkeypatch, num_workers, num_cases, share_cores, expected
    ):
        found = {}
        monkeypatch.setattr(parallel.machine, "num_cores", lambda: 6)
        monkeypatch.setattr(
            parallel,
            "worker_processes",
            lambda count, **options: found.update(options, count=count),
        )
        parallel.workers(
            None, num_workers, num_cases, share_cores=share_cores, verbosity=1
        )
        assert (found["count"], found["num_threads"]) == expected
        assert (found["verbosity"], found["where"]) == (1, "")

    def test_an_executor_is_used_and_left_open(self):
        executor = PicklingExecutor()
        with parallel.workers(executor, None, 3) as found:
            assert found is executor
        assert executor.submit(str, 4).result() == "4"
        executor.shutdown()


def read_environment(name):
    import SimpleITK as sitk

    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    return os.getpid(), os.environ.get(name), threads, logging.get_verbosity()


class TestWorkerProcesses:
    @pytest.mark.parametrize(
        ("num_threads", "verbosity", "expected"),
        [(1, logging.ERROR, logging.ERROR), (3, None, logging.get_verbosity())],
    )
    def test_are_set_up(self, num_threads, verbosity, expected):
        with parallel.worker_processes(
            1, num_threads=num_threads, verbosity=verbosity
        ) as pool:
            ((_, found),) = parallel.map_cases(
                read_environment, ["OPENBLAS_NUM_THREADS"], pool
            )
        pid, *settings = found
        assert pid != os.getpid()
        assert settings == [str(num_threads), num_threads, expected]

    def test_a_killed_worker_is_one_error_that_names_the_setting(self):
        with (
            pytest.raises(StoppedError, match="memory with `num_workers`=1; rerun"),
            parallel.worker_processes(1) as pool,
        ):
            dict(parallel.map_cases(end_process, ["a", "b"], pool))

    def test_uses_the_requested_number(self, monkeypatch):
        made = []

        class Pool(concurrent.futures.ThreadPoolExecutor):
            def __init__(self, max_workers, **keywords):
                made.append((max_workers, keywords["mp_context"].get_start_method()))
                super().__init__(1)

        monkeypatch.setattr(parallel.concurrent.futures, "ProcessPoolExecutor", Pool)
        with parallel.worker_processes(3):
            pass
        assert made == [(3, "spawn")]


OWNER = """
import os, time
from u2net_tf import parallel

def sleep(seconds):
    time.sleep(seconds)
    return os.getpid()

if __name__ == "__main__":
    with parallel.worker_processes(1) as pool:
        for _, pid in parallel.map_cases(sleep, [0, 60], pool):
            print(pid, flush=True)
            {then}
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # It may also end between opening and reading.
        return False


def start_owner(tmp_path, then):
    (tmp_path / "owner.py").write_text(OWNER.replace("{then}", then))
    return subprocess.Popen(
        [sys.executable, tmp_path / "owner.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_until_ended(pid):
    end = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_worker_ignores_ctrl_c_while_it_imports(monkeypatch):
    calls = []
    monkeypatch.setattr(signal, "signal", lambda *given: calls.append(given))
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    monkeypatch.setattr(parallel.os, "environ", {})
    with pytest.raises(ImportError):
        parallel.initialize_worker(1, 0)
    assert calls == [(signal.SIGINT, signal.SIG_IGN)]


@needs_proc
def test_worker_ends_when_its_owner_is_killed(tmp_path):
    with start_owner(tmp_path, "pass") as owner:
        pid = int(owner.stdout.readline())
        assert is_running(pid)
        owner.kill()
        owner.wait()
    wait_until_ended(pid)


@needs_proc
def test_workers_are_terminated_on_ctrl_c(tmp_path):
    """Immediately: the running case would take a minute."""
    with start_owner(tmp_path, "raise KeyboardInterrupt") as owner:
        pid = int(owner.stdout.readline())
        _, message = owner.communicate(timeout=30)
    assert message.splitlines()[-1] == "KeyboardInterrupt"
    assert message.count("Traceback") == 1, message
    wait_until_ended(pid)
