import contextlib
import errno
import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from u2net_tf import locks, temporary_names
from u2net_tf.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]
HOLD = """
import sys
from u2net_tf import locks
with getattr(locks, sys.argv[2])(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(folder, how="locked"):
    """A process that holds the lock until the context exits."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), how],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            process.stdin.close()
            assert process.wait() == 0


def enter(folder):
    with locks.locked(folder):
        pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def names_the_holder(error, folder, does, process):
    """Whether an error names the folder, the process that uses it and what it does."""
    host = re.escape(temporary_names.host())
    return re.fullmatch(
        f"{re.escape(str(folder))}: expected a folder that no other run {does}. "
        f"Received: process {process.pid} on {host}, since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\. "
        "Wait for it to finish, or use another folder",
        str(error),
    )


def test_the_second_run_is_refused_with_the_holder_of_the_lock(tmp_path):
    folder = tmp_path / "model"
    with another_process(folder) as process:
        with pytest.raises(InputError) as caught:
            enter(folder)
        assert names_the_holder(caught.value, folder, "writes to", process)
        # The first run keeps its lock.
        assert names(folder) == [locks.LOCK, locks.HOLDER]
    enter(folder)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, caplog):
    with another_process(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert names(tmp_path) == [locks.LOCK, locks.HOLDER]
    with locks.locked(tmp_path):
        text = (tmp_path / locks.HOLDER).read_text()
        assert text.startswith(f"process {os.getpid()} on ")
    expected = f"taking over the lock left by process {process.pid} on "
    assert expected in caplog.text
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_run_that_ends_leaves_only_what_it_wrote(tmp_path, error):
    with pytest.raises(type(error)), locks.locked(tmp_path / "a" / "b"):
        raise error
    assert names(tmp_path) == []
    with locks.locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "plan.json").touch()
    assert names(tmp_path / "a") == ["plan.json"]


def test_an_existing_folder_is_kept(tmp_path):
    enter(tmp_path)
    assert names(tmp_path) == []


def test_temporary_files_of_dead_runs_are_removed(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 999_999_999)
        temporary_names.temporary_path(tmp_path / "plan.json").touch()
    enter(tmp_path)
    assert names(tmp_path) == []


NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_a_run_continues_and_warns(tmp_path, monkeypatch, caplog, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.locked(tmp_path / "model"):
        # Nothing keeps a second run out, even if the first one is killed.
        enter(tmp_path / "model")
    assert "model: cannot be locked (" in caplog.text
    assert os.strerror(number) in caplog.text
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_a_reader_removes_only_a_file_that_nobody_can_lock(
    tmp_path, monkeypatch, number
):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.shared(tmp_path):
        pass
    assert names(tmp_path) == ([] if number == errno.ENOLCK else [locks.LOCK])


def test_an_unwritable_folder_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError) as caught:
            enter(folder)
        assert caught.value.where == str(folder)
        assert caught.value.expected == "a folder that can be written to"


def test_a_damaged_holder_file_is_tolerated(tmp_path):
    with another_process(tmp_path):
        (tmp_path / locks.HOLDER).write_bytes(b"\xff\xfe\0")
        with pytest.raises(InputError, match="expected a folder that no other run"):
            enter(tmp_path)
        (tmp_path / locks.HOLDER).unlink()
        with pytest.raises(InputError, match="Received: a run in progress"):
            enter(tmp_path)


class TestShared:
    def read(self, folder):
        with locks.shared(folder):
            assert (folder / locks.LOCK).exists()

    def test_readers_block_a_writer_and_are_named(self, tmp_path):
        with another_process(tmp_path, "shared") as process:
            self.read(tmp_path)
            with pytest.raises(InputError) as caught:
                enter(tmp_path)
            assert names_the_holder(caught.value, tmp_path, "reads", process)
            with locks.shared(tmp_path), pytest.raises(InputError) as caught:
                enter(tmp_path)
            assert caught.value.received.count("process ") == 2
        assert names(tmp_path) == []
        enter(tmp_path)

    def test_a_writer_blocks_readers(self, tmp_path):
        with another_process(tmp_path) as process:
            with pytest.raises(InputError) as caught:
                self.read(tmp_path)
            assert caught.value.expected == "a folder that no run writes to"
            assert caught.value.received.startswith(f"process {process.pid} on ")
            assert names(tmp_path) == [locks.LOCK, locks.HOLDER]
        self.read(tmp_path)

    @pytest.mark.parametrize("how", ["locked", "shared"])
    def test_a_killed_process_is_ignored(self, tmp_path, how):
        with another_process(tmp_path, how) as process:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert len(names(tmp_path)) == 2
        with locks.shared(tmp_path):
            assert not (tmp_path / locks.HOLDER).exists()
            with pytest.raises(InputError) as caught:
                enter(tmp_path)
            assert str(process.pid) not in str(caught.value)
            assert f"process {os.getpid()} on " in str(caught.value)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOENT])
    def test_an_unwritable_folder_is_read_unlocked(
        self, tmp_path, monkeypatch, caplog, number
    ):
        def refuse(*arguments, **keywords):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "open", refuse)
        with locks.shared(tmp_path):
            assert names(tmp_path) == []
        assert not caplog.records

    @pytest.mark.parametrize("number", NO_LOCKS)
    def test_a_file_system_without_locks(self, tmp_path, monkeypatch, caplog, number):
        def refuse(*arguments):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)
        with locks.shared(tmp_path):
            assert names(tmp_path) == []
            enter(tmp_path)
        (tmp_path / locks.LOCK).touch()
        caplog.clear()
        with locks.shared(tmp_path):
            pass
        assert not caplog.records
        assert names(tmp_path) == [locks.LOCK], "it may be that of another host"

    def test_a_lock_that_its_holder_removed_is_not_taken(self, tmp_path, monkeypatch):
        path = tmp_path / locks.LOCK
        flock = fcntl.flock
        opened = []

        def remove_first(descriptor, operation):
            opened.append(descriptor)
            if len(opened) == 1:
                path.unlink()
            return flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", remove_first)
        with locks.shared(tmp_path):
            assert len(opened) == 2
            with pytest.raises(InputError, match="no other run reads"):
                enter(tmp_path)


def train(folder):
    from u2net_tf.config.training import TrainConfig
    from u2net_tf.training import runs

    flags = {"data_dir": "missing", "model_dir": str(folder)}
    runs.train(TrainConfig.from_flat(flags))


def train_independently(folder):
    from u2net_tf.config.training import TrainConfig
    from u2net_tf.training import runs

    flags = {"data_dir": "missing", "model_dir": str(folder), "independent": True}
    runs.train_independently(TrainConfig.from_flat(flags))


def adapt(folder):
    from u2net_tf.config.training import AdaptConfig
    from u2net_tf.training.adaptation import adapt

    flags = {"data_dir": "missing", "model_dir": str(folder), "domain": "Task90"}
    adapt(AdaptConfig.from_flat({"from_": "missing", **flags}))


def compose(folder):
    from u2net_tf.config.inference import ComposeConfig
    from u2net_tf.models.composition import compose_models

    flags = {"models": ("missing",), "model_dir": str(folder)}
    compose_models(ComposeConfig.from_flat(flags))


def port(folder):
    from u2net_tf.published_weights import porting

    porting.port("missing", None, folder)


def evaluate(folder):
    from u2net_tf.config.evaluation import EvaluateConfig
    from u2net_tf.evaluation.evaluate_model import evaluate_model

    flags = {"model_dir": ("missing",), "output_dir": str(folder)}
    evaluate_model(EvaluateConfig.from_flat(flags))


@pytest.mark.parametrize(
    "write", [train, train_independently, adapt, compose, port, evaluate]
)
def test_a_second_writer_is_refused_before_anything_is_read(tmp_path, write):
    with locks.locked(tmp_path):
        with pytest.raises(InputError, match="expected a folder that no other run"):
            write(tmp_path)
        assert names(tmp_path) == [locks.LOCK, locks.HOLDER]
    with pytest.raises((InputError, AttributeError, OSError), match="missing|NoneType"):
        write(tmp_path / "new")
    assert names(tmp_path) == []
