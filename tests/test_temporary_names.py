import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

from u2net_tf import files, temporary_names

DEAD = 999_999_999


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make(folder, name, *, process=None, days=0, monkeypatch=None):
    """Makes a temporary file of a process, last modified `days` ago."""
    with pytest.MonkeyPatch.context() as patch:
        if process is not None:
            patch.setattr(os, "getpid", lambda: process)
        path = temporary_names.temporary_path(folder / name)
    path.write_text("half")
    age(path, days)
    return path


def age(path, days):
    before = path.stat().st_mtime - days * 24 * 3600
    os.utime(path, (before, before))


@pytest.mark.parametrize(
    "name",
    ["plan.json", "a" * 229 + ".nii.gz", "b" * 248 + ".nii.gz", "é" * 124 + ".nii.gz"],
    ids=["short", "236 letters", "255 bytes", "letters of two bytes"],
)
def test_a_file_of_any_name_is_written_and_read(tmp_path, name):
    path = tmp_path / name
    with files.atomic_write(path) as partial:
        partial.write_text("whole")
        assert partial.name.endswith(".json" if name == "plan.json" else ".nii.gz")
        assert names(tmp_path) == [partial.name]
    assert path.read_text() == "whole"


def test_names_contain_host_and_process_and_are_unique(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node 7/a~b")
    made = {temporary_names.temporary_path(tmp_path / "plan.json") for _ in range(100)}
    assert len(made) == 100
    start = ".partial-node_7_a_b~"
    assert all(path.name.startswith(start) for path in made)
    assert all(f"~{os.getpid()}~" in path.name for path in made)


def test_two_containers_with_the_same_process_id_do_not_mix(tmp_path, monkeypatch):
    # Both write at the same time, as in a shared folder.
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "survey.json"
    with files.atomic_write(path) as first:
        first.write_text("first, whole")
        with files.atomic_write(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first, whole"
    assert names(tmp_path) == ["survey.json"]


class TestLeftovers:
    def test_of_an_ended_process_are_removed(self, tmp_path):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        make(tmp_path, "plan.json", process=ended.pid)
        folder = make(tmp_path, "step-4", process=DEAD)
        folder.unlink()
        folder.mkdir()
        (folder / "step-4.index").touch()
        temporary_names.remove_leftovers(tmp_path)
        assert names(tmp_path) == []

    def test_of_a_running_process_are_kept(self, tmp_path):
        running = [make(tmp_path, "a"), make(tmp_path, "b", process=os.getppid())]
        temporary_names.remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted(path.name for path in running)

    @pytest.mark.parametrize("place", ["host", "namespace"])
    def test_of_another_host_or_namespace_are_kept_for_a_week(
        self, tmp_path, monkeypatch, place
    ):
        # Process ids of another host or namespace mean nothing here.
        with pytest.MonkeyPatch.context() as patch:
            if place == "host":
                patch.setattr(socket, "gethostname", lambda: "another")
            else:
                here = temporary_names._place().partition("~")[0]
                patch.setattr(temporary_names, "_place", lambda: f"{here}~1")
            live = make(tmp_path, "live", process=DEAD, days=6.9)
            make(tmp_path, "dead", process=DEAD, days=7.1)
        temporary_names.remove_leftovers(tmp_path)
        assert names(tmp_path) == [live.name]

    def test_a_folder_is_as_old_as_its_newest_file(self, tmp_path):
        folder = make(tmp_path, "step-4")
        folder.unlink()
        folder.mkdir()
        (folder / "step-4.index").touch()
        age(folder, 8)
        temporary_names.remove_leftovers(tmp_path)
        assert names(tmp_path) == [folder.name]
        age(folder / "step-4.index", 8)
        temporary_names.remove_leftovers(tmp_path)
        assert names(tmp_path) == []

    def test_of_release_0_1_are_removed_after_a_week(self, tmp_path):
        old, new = (tmp_path / f".partial-{number}-plan.json" for number in (1, DEAD))
        for path, days in ((old, 8), (new, 6)):
            path.touch()
            age(path, days)
        temporary_names.remove_leftovers(tmp_path)
        assert names(tmp_path) == [new.name]

    def test_files_of_other_programs_are_kept(self, tmp_path):
        for name in (".partial-download", "plan.json", f".partial-x-{DEAD}-y"):
            (tmp_path / name).touch()
            age(tmp_path / name, 100)
        before = names(tmp_path)
        temporary_names.remove_leftovers(tmp_path)
        assert names(tmp_path) == before

    def test_a_missing_folder_has_none(self, tmp_path):
        temporary_names.remove_leftovers(tmp_path / "missing")

    def test_a_file_that_cannot_be_removed_is_left(self, tmp_path, monkeypatch):
        path = make(tmp_path, "plan.json", process=DEAD)

        def refuse(*arguments, **keywords):
            raise PermissionError("not yours")

        monkeypatch.setattr(pathlib.Path, "unlink", refuse)
        temporary_names.remove_leftovers(tmp_path)
        assert names(tmp_path) == [path.name]


def test_threads_write_the_same_file_intact(tmp_path):
    path = tmp_path / "plan.json"
    texts = [f"{number}" * 1000 for number in range(8)]
    threads = [
        threading.Thread(target=files.write_text, args=(path, text)) for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert names(tmp_path) == ["plan.json"]
