import io
import sys

import pytest
from absl import logging

from u2net_tf import command
from u2net_tf.command_progress import LoggedBar
from u2net_tf.progress import silent


class TestSilent:
    def test_yields_the_items(self):
        bar = silent(iter("ab"), "letters", total=2, unit="letter")
        assert list(bar) == ["a", "b"]

    def test_counts_nothing(self, capfd):
        with silent(total=2, desc="steps", initial=1, leave=False, delay=1) as bar:
            bar.update()
            bar.set_postfix(loss="1", refresh=False)
            bar.unpause()
        assert list(bar) == []
        assert capfd.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestBar:
    def test_is_drawn_on_a_terminal(self, monkeypatch):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        bar = command.progress_bar("abc", "letters", unit="letter")
        assert list(bar) == ["a", "b", "c"]
        assert "letters: 100%" in terminal.getvalue()
        assert "3/3" in terminal.getvalue()

    def test_is_not_drawn_elsewhere(self, capfd):
        with command.progress_bar(total=3, desc="letters", leave=False) as bar:
            bar.update(2)
        assert capfd.readouterr() == ("", "")

    def test_interval_of_log_lines_elsewhere(self):
        bar = command.progress_every(7.0)("abc", "letters", unit="letter", delay=3)
        assert isinstance(bar, LoggedBar)
        assert bar._every == 7.0


class TestLines:
    @pytest.fixture
    def lines(self, monkeypatch):
        lines = []
        monkeypatch.setattr(
            logging, "info", lambda text, *values: lines.append(text % values)
        )
        return lines

    def test_report_progress_and_time_left(self, lines):
        now = [100.0]
        options = {"total": 60, "unit": "case", "log_every_seconds": 30.0}
        bar = LoggedBar(desc="survey", clock=lambda: now[0], initial=20, **options)
        # Half of them in 20 s, then one in 20 s: the rate is that since the last line.
        for seconds, units in ((20, 20), (0, 0), (20, 1), (25, 9), (10, 1), (60, 0)):
            now[0] += seconds
            bar.update(units)
        now[0] += 300
        bar.update(9)
        assert lines == [
            "survey: 41 of 60 cases, 1.90 s per case, 36 s left",
            "survey: 51 of 60 cases, 3.50 s per case, 32 s left",
        ]

    def test_report_values_next_to_the_count(self, lines):
        now = [0.0]
        options = {"unit": "step", "log_every_seconds": 2.0, "clock": lambda: now[0]}
        bar = LoggedBar(range(5), "epoch 1", **options)
        for step in bar:
            now[0] += 0.75
            bar.set_postfix(refresh=False, loss=f"{step}.0", run_ends_in="3 min")
        assert lines == [
            "epoch 1: 3 of 5 steps, 1.33 steps/s, 2 s left, loss 2.0, run ends in 3 min"
        ]

    def test_ignore_the_time_before_unpause(self, lines):
        now = [0.0]
        options = {"unit": "step", "log_every_seconds": 2.0, "clock": lambda: now[0]}
        bar = LoggedBar(range(9), **options)
        for step in bar:
            now[0] += 60 if step == 2 else 1.5
            if step == 2:
                bar.unpause()
        assert lines == [
            "2 of 9 steps, 1.50 s per step, 10 s left",
            "5 of 9 steps, 1.50 s per step, 6 s left",
            "7 of 9 steps, 1.50 s per step, 3 s left",
        ]

    def test_without_a_name_or_a_total(self, lines):
        now = [0.0]
        for _ in LoggedBar(iter("abc"), log_every_seconds=2, clock=lambda: now[0]):
            now[0] += 1
        assert lines == ["2 its, 1.00 s per it"]

    def test_none_for_short_work(self, lines):
        for _ in LoggedBar("abc", log_every_seconds=9, clock=lambda: 0.0):
            pass
        assert lines == []
