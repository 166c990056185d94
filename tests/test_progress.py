import io
import sys

from u2net_tf import command
from u2net_tf.progress import silent


class TestSilent:
    def test_gives_the_items(self):
        bar = silent(iter("ab"), "letters", total=2, unit="letter")
        assert list(bar) == ["a", "b"]

    def test_counts_nothing(self, capfd):
        with silent(total=2, desc="steps", initial=1, leave=False, delay=1) as bar:
            bar.update()
            bar.set_postfix(loss="1", refresh=False)
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
        with command.progress_bar(total=3, desc="letters") as bar:
            bar.update(2)
        assert capfd.readouterr() == ("", "")
