"""Measurement and reports of the benchmarks; no durations are asserted."""

import dataclasses
import json
import os
import sys
import time

import numpy as np
import pytest

from tools.bench import measuring, reporting
from tools.bench.measuring import Contender, Measurement, Task
from u2net_tf import command, machine

MILLION = 10**6


def make_logging(path, name, result=0.0, num_bytes=0):
    """Returns a task that writes its name whenever it runs."""

    def run():
        with open(path, "a", encoding="utf-8") as file:
            file.write(name)
        allocated = np.ones(num_bytes, np.uint8)
        return allocated[:1] * 0 + result

    return Task(run, lambda value: {"value": value})


def make_counting():
    """Returns a task whose results are its number of runs and its environment."""
    runs = []

    def run():
        runs.append(None)
        return [len(runs)]

    def results(value):
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES")
        found = np.array([os.environ[name] for name in names])
        score = int(measuring.OOM_SCORE_ADJ.read_text())
        return {"runs": np.array(value), "environment": found, "score": score}

    return Task(run, results)


def make_ending(status):
    """Returns a task that ends its process."""
    return Task(lambda: os._exit(status))


def make_sleeping(seconds, repeats=1):
    return Task(lambda: time.sleep(seconds), repeats=repeats)


@pytest.fixture
def contenders(tmp_path):
    path = tmp_path / "log"
    return path, [
        Contender(name, make_logging, {"path": path, "name": name}) for name in "ab"
    ]


def make_large_results(num_bytes):
    """Returns a task that needs memory only for its results."""

    def results(value):
        return {"ones": np.ones(num_bytes, np.uint8)}

    return measuring.Task(lambda: None, results)


class TestMeasure:
    def test_contenders_alternate(self, contenders):
        path, both = contenders
        measured = measuring.measure(both, runs=3, warm_ups=2)
        assert path.read_text() == "ab" * 5
        assert [m.name for m in measured] == ["a", "b"]
        assert all(len(m.seconds) == 3 for m in measured)

    def test_contenders_can_run_one_after_another(self, contenders):
        path, both = contenders
        measuring.measure(both, runs=2, warm_ups=1, together=False)
        assert path.read_text() == "aaabbb"

    def test_time_is_the_duration_of_the_run(self):
        contender = Contender("sleep", make_sleeping, {"seconds": 0.2})
        (measured,) = measuring.measure([contender], runs=2, warm_ups=0)
        # No upper limit: the machine may be busy.
        assert min(measured.seconds) >= 0.2

    def test_short_runs_are_repeated_and_averaged(self):
        contender = Contender("sleep", make_sleeping, {"seconds": 0.1, "repeats": 6})
        started = time.perf_counter()
        (measured,) = measuring.measure([contender], runs=1, warm_ups=0)
        assert time.perf_counter() - started >= 0.6
        assert 0.1 <= measured.median <= (time.perf_counter() - started) / 6

    def test_results_are_of_the_first_run(self):
        contender = Contender("count", make_counting)
        (measured,) = measuring.measure([contender], runs=2, warm_ups=2, threads=3)
        assert measured.results["runs"].tolist() == [1]

    def test_threads_are_limited_and_gpus_hidden(self):
        contender = Contender("count", make_counting)
        (measured,) = measuring.measure([contender], runs=1, threads=3)
        assert measured.results["environment"].tolist() == ["3", "3", "-1"]
        (measured,) = measuring.measure([contender], runs=1)
        assert measured.results["environment"][0] == str(machine.num_cores())

    def test_contenders_are_killed_first_if_memory_runs_out(self):
        (measured,) = measuring.measure([Contender("count", make_counting)], runs=1)
        assert measured.results["score"] == 1000
        assert int(measuring.OOM_SCORE_ADJ.read_text()) < 1000

    def test_median_of_an_odd_and_an_even_number_of_runs(self):
        assert measurement(seconds=(3.0, 1.0, 50.0)).median == 3.0
        assert measurement(seconds=(3.0, 1.0, 50.0, 4.0)).median == 3.5

    @pytest.mark.slow
    def test_memory_is_of_the_process_alone(self, tmp_path):
        allocated = np.ones(400 * MILLION, np.uint8)
        assert measuring.peak_memory_bytes() > allocated.nbytes
        path = tmp_path / "log"
        small, large = measuring.measure(
            [
                Contender(
                    name,
                    make_logging,
                    {"path": path, "name": name, "num_bytes": size * MILLION},
                )
                for name, size in (("small", 1), ("large", 200))
            ],
            runs=1,
        )
        # Excludes the memory of this process and of the other contender.
        assert small.peak_bytes < 200 * MILLION
        assert large.peak_bytes - large.start_bytes > 190 * MILLION
        assert small.start_bytes <= small.peak_bytes

    @pytest.mark.slow
    def test_memory_of_results_is_excluded(self):
        arguments = {"num_bytes": 300 * MILLION}
        contender = Contender("ours", make_large_results, arguments)
        (measured,) = measuring.measure([contender], runs=2)
        assert measured.results["ones"].nbytes == 300 * MILLION
        assert measured.peak_bytes - measured.start_bytes < 100 * MILLION

    def test_memory_that_is_only_reserved_is_excluded(self):
        before = measuring.peak_memory_bytes()
        reserved = np.empty(2000 * MILLION, np.uint8)
        assert measuring.peak_memory_bytes() - before < 1000 * MILLION < len(reserved)

    def test_a_process_that_exits_is_reported(self):
        contender = Contender("theirs", make_ending, {"status": 7})
        with pytest.raises(command.StoppedError, match="theirs: .* status 7 "):
            measuring.measure([contender], runs=1)

    def test_other_operating_systems_are_reported(self, monkeypatch, tmp_path):
        monkeypatch.setattr(measuring, "STATUS", tmp_path / "status")
        with pytest.raises(command.StoppedError, match="needs Linux.*status"):
            measuring.peak_memory_bytes()


def measurement(name="ours", seconds=(1.0,), peak=100, **results):
    arrays = {key: np.asarray(value, float) for key, value in results.items()}
    return Measurement(name, tuple(seconds), peak, 10, arrays)


class TestAgreement:
    def test_is_relative_to_the_largest_value(self):
        pair = [measurement(y=[0.0, 100.0]), measurement("theirs", y=[1.0, 100.0])]
        assert measuring.check_agreement(pair, 0.011) == 0.01
        with pytest.raises(command.StoppedError, match="y: .*theirs.*Received: 0.01"):
            measuring.check_agreement(pair, 0.009)

    @pytest.mark.parametrize("found", [[0.0, np.nan], [0.0, 100.0, 0.0]])
    def test_different_shapes_and_nan_do_not_agree(self, found):
        pair = [measurement(y=[0.0, 100.0]), measurement("theirs", y=found)]
        with pytest.raises(command.StoppedError, match="theirs"):
            measuring.check_agreement(pair, 1.0)

    def test_different_names_of_results_are_an_error(self):
        with pytest.raises(ValueError, match="'y'.*Received: .'x'"):
            measuring.check_agreement([measurement(y=1), measurement("b", x=1)], 1.0)


class TestReport:
    def report(self):
        rows = reporting.rows_of(
            [
                measurement(seconds=(0.2, 0.1, 0.4), peak=2 * 10**9),
                measurement("theirs", seconds=(1.0, 1.5, 3.25), peak=10**9),
            ],
            part="step",
        )
        rows.append(dict.fromkeys(rows[0]) | {"part": "step", "contender": "none"})
        columns = (reporting.CONTENDER, *reporting.TIMES_MS, *reporting.MEMORY)
        return reporting.Report("step", columns, rows, ["A note."])

    def test_table_is_aligned_and_ratios_are_relative_to_ours(self):
        assert reporting.to_table(self.report()).splitlines() == [
            "contender      median ms    fastest    slowest    time ÷ ours    peak GB"
            "    peak ÷ ours",
            "-----------  -----------  ---------  ---------  -------------  ---------"
            "  -------------",
            "ours              200.00     100.00     400.00           1.00       2.00"
            "           1.00",
            "theirs           1500.00    1000.00    3250.00           7.50       1.00"
            "           0.50",
            "none                   –          –          –              –          –"
            "              –",
        ]

    def test_json_has_the_content_of_the_table(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["-", "--output=a b.json", "--runs=3"])
        report = self.report()
        reporting.publish(report, tmp_path / "new" / "step.json", threads=5)
        content = json.loads((tmp_path / "new" / "step.json").read_text())
        said = capsys.readouterr().out
        assert reporting.to_table(report) in said
        shown = dataclasses.replace(report, rows=content["rows"])
        assert reporting.to_table(shown) == reporting.to_table(report)
        assert content["rows"][1]["runs_seconds"] == [1.0, 1.5, 3.25]
        line = "python -m tools.bench.step '--output=a b.json' --runs=3"
        assert content["command"] == line
        assert line in said
        assert content["machine"]["threads"] == 5
        assert "threads of each contender: 5" in said
        assert content["machine"]["cores"] == len(os.sched_getaffinity(0))
        for name, version in content["machine"]["versions"].items():
            assert f"{name} {version}" in said
        assert "A note." in said
        assert content["notes"] == ["A note."]
