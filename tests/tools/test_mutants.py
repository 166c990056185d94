"""Mutants of a source file, their random selection, and the tests that kill them."""

import json
import subprocess

import pytest

from tools.mutants import __main__ as mutants_command
from tools.mutants import changes, trying
from u2net_tf.errors import InputError, StoppedError

SOURCE = '''"""A module."""

import os


def share(count: int, total: int, *, percent: bool = False) -> float | None:
    """Docstring with 1 < 2."""
    if total <= 0:
        return None
    factor = 100 if percent else 1
    return round(count / total * factor, ndigits=3)
'''


def changed(source=SOURCE):
    return {
        (mutant.line, mutant.after.strip())
        for mutant in changes.mutants_of(source, "share.py")
    }


@pytest.mark.parametrize(
    ("line", "after"),
    [
        (8, "if total < 0:"),
        (8, "if total <= 1:"),
        (8, "if True:"),
        (10, "factor = 101 if percent else 1"),
        (10, "factor = 100 if False else 1"),
        (11, "return None"),
        (11, "return round(count * total * factor, ndigits=3)"),
        (11, "return round(count / total * factor, )"),
    ],
)
def test_a_line_is_changed(line, after):
    assert (line, after) in changed()


def test_only_lines_with_behaviour_are_changed():
    assert {line for line, _ in changed()} == {6, 8, 10, 11}
    assert {after for line, after in changed() if line == 6} == {
        "def share(count: int, total: int, *, percent: bool = True) -> float | None:"
    }


def test_every_mutant_can_be_parsed():
    lines = SOURCE.splitlines()
    for mutant in changes.mutants_of(SOURCE, "share.py"):
        assert mutant.before == lines[mutant.line - 1] != mutant.after
        replaced = [*lines]
        replaced[mutant.line - 1] = mutant.after
        compile("\n".join(replaced), "share.py", "exec")


@pytest.fixture
def folder(tmp_path):
    """A package with a test that covers half of it."""
    for name in ("u2net_tf", "data_prep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "u2net_tf" / "share.py").write_text(SOURCE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_share.py").write_text(
        "from u2net_tf.share import share\n"
        "def test():\n"
        "    assert share(1, 4) == 0.25\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\npythonpath = ["."]\n'
        '[tool.coverage.run]\nsource = ["u2net_tf"]\n'
    )
    return tmp_path


LINES = {"tests/test_share.py": {"u2net_tf/share.py": [8, 10, 11]}}


def test_lines_are_those_that_a_test_runs(folder):
    checkout = trying.Checkout(folder)
    found = trying.lines_by_test(checkout, folder / "lines", num_workers=1)
    (lines,) = found.values()
    assert {8, 10, 11} <= set(lines["u2net_tf/share.py"])
    assert 9 not in lines["u2net_tf/share.py"]
    # The second time, the tests are not run.
    (folder / "tests" / "test_share.py").write_text("1 / 0")
    assert trying.lines_by_test(checkout, folder / "lines", num_workers=1) == found


def test_lines_of_interrupted_tests_are_not_kept(folder):
    def measure(last):
        (folder / "tests" / "test_share.py").write_text(
            "from u2net_tf.share import share\n"
            "def test():\n"
            "    share(1, 4)\n"
            f"    {last}\n"
        )
        checkout = trying.Checkout(folder)
        return trying.lines_by_test(checkout, folder / "lines", num_workers=1)

    with pytest.raises(StoppedError, match=r"tests/test_share\.py: .* exit status 2"):
        measure("raise KeyboardInterrupt")
    (lines,) = measure("assert False").values()
    assert {8, 10, 11} <= set(lines["u2net_tf/share.py"])


def test_mutants_are_of_lines_that_tests_run(folder):
    drawn = trying.draw_mutants(folder, LINES, count=3, seed=1)
    assert sorted(mutant.line for mutant in drawn) == [8, 10, 11]
    assert drawn == trying.draw_mutants(folder, LINES, count=3, seed=1)
    assert any(
        drawn != trying.draw_mutants(folder, LINES, count=3, seed=seed)
        for seed in range(2, 9)
    )
    with pytest.raises(InputError, match="at most 3. Received: 4"):
        trying.draw_mutants(folder, LINES, count=4, seed=1)


KILLED = changes.Mutant("u2net_tf/share.py", 11, "", "    return None")
UNDETECTED = changes.Mutant(
    "u2net_tf/share.py", 10, "", "    factor = 101 if percent else 1"
)


def test_first_failure_is_recorded(folder):
    path = folder / "u2net_tf" / "share.py"
    before = path.read_text()
    record = trying.Record(folder / "record.json")
    checkout = trying.Checkout(folder)
    trying.try_mutants([checkout], [KILLED, UNDETECTED], LINES, record=record)
    assert path.read_text() == before
    assert record.outcomes == {
        str(KILLED): "tests/test_share.py::test",
        str(UNDETECTED): "survived",
    }
    assert [record.survived(mutant) for mutant in (KILLED, UNDETECTED)] == [False, True]
    # The second time, recorded mutants are not tried.
    again = trying.Record(record.path)
    trying.try_mutants(
        [trying.Checkout(folder / "gone")], [KILLED, UNDETECTED], LINES, record=again
    )
    assert again.outcomes == record.outcomes


@pytest.mark.slow  # Runs all tests in two workers.
def test_survivors_are_tried_by_all_tests(folder):
    (folder / "tests" / "test_other.py").write_text(
        "import pathlib\n"
        "def test():\n"
        "    assert 'return None' in pathlib.Path('u2net_tf/share.py').read_text()\n"
        "    assert '101' not in pathlib.Path('u2net_tf/share.py').read_text()\n"
    )
    survivor = changes.Mutant("u2net_tf/share.py", 8, "", "    if total < 0:")
    record = trying.Record(folder / "record.json")
    checkout = trying.Checkout(folder)
    trying.try_mutants([checkout], [UNDETECTED, survivor], LINES, record=record)
    both = [UNDETECTED, survivor]
    trying.try_all_tests(checkout, both, record=record, num_workers=2)
    assert record.outcomes == {
        str(UNDETECTED): "tests/test_other.py::test",
        str(survivor): "survived all tests",
    }
    assert record.survived(survivor)
    (folder / "tests" / "test_other.py").write_text("1 / 0")
    trying.try_all_tests(checkout, [survivor], record=record, num_workers=2)
    assert record.survived(survivor)


@pytest.fixture
def project(folder, monkeypatch):
    """A repository with that package, used in checkout of this one."""
    seconds = json.dumps({"tests/test_quick.py": 1.5, "tests/test_long.py": 20})
    (folder / "tests" / "seconds.json").write_text(seconds)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "First"], check=True)
    monkeypatch.setattr(trying, "ROOT", folder)
    return folder


def test_the_copy_is_the_last_commit(project, tmp_path_factory):
    (project / "later.txt").write_text("not committed")
    checkout = trying.Checkout(tmp_path_factory.mktemp("work") / "code")
    checkout.create()
    source = checkout.folder / "u2net_tf" / "share.py"
    source.write_text("left by a killed run")
    checkout.create()
    assert source.read_text() == SOURCE
    found = sorted(path.name for path in checkout.folder.iterdir())
    assert found == [".git", "data_prep", "pyproject.toml", "tests", "u2net_tf"]
    # The quickest file comes first.
    assert json.loads((checkout.folder / "tests" / "seconds.json").read_text()) == {
        "tests/test_quick.py": -1.5,
        "tests/test_long.py": -20,
    }


@pytest.mark.slow  # Runs tests a dozen times, each in a separate process.
def test_command(project, tmp_path_factory, capsys):
    work = tmp_path_factory.mktemp("work")
    config = mutants_command.MutantsConfig(
        work_dir=str(work), count=3, seed=1, all_tests=True
    )
    mutants_command.main(config)
    outcomes = trying.Record(work / "seed1.json").outcomes
    assert len(outcomes) == 3
    survivors = [m for m, outcome in outcomes.items() if outcome.startswith("surv")]
    lines = capsys.readouterr().out.splitlines()
    assert set(lines[:-1]) == {f"survived all tests: {mutant}" for mutant in survivors}
    killed = 3 - len(survivors)
    assert lines[-1].startswith(f"{killed} of 3 mutants were killed; {work}/seed1")
