import pathlib
import subprocess

import pytest

from u2net_tf import source_commit as module
from u2net_tf.source_commit import source_commit

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The package in a repository of its own."""
    for line in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "a")):
        subprocess.run([*GIT, *line], cwd=tmp_path, check=True)
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    source_commit.cache_clear()
    yield tmp_path
    source_commit.cache_clear()


def commit_of(folder):
    line = [*GIT, "rev-parse", "HEAD"]
    return subprocess.check_output(line, cwd=folder, encoding="utf-8")[:12]


def test_of_a_checkout(checkout, monkeypatch):
    # As in a hook of another repository.
    monkeypatch.setenv("GIT_DIR", str(checkout / "other"))
    found = source_commit()
    monkeypatch.delenv("GIT_DIR")
    assert found == commit_of(checkout)


def test_of_an_edited_checkout(checkout):
    (checkout / "file").touch()
    subprocess.run([*GIT, "add", "file"], cwd=checkout, check=True)
    assert source_commit() == f"{commit_of(checkout)}-dirty"


def test_within_the_checkout_of_another_project(checkout, monkeypatch):
    inner = checkout / "site-packages"
    inner.mkdir()
    monkeypatch.setattr(module, "_ROOT", inner)
    assert source_commit() is None


def test_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(pathlib.Path(checkout, "no")))
    assert source_commit() is None
