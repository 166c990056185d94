"""Records how a folder is written, and computes every state a power cut could leave.

Only what was flushed is certain to be on disk: the content of a file after a flush of
the file, the names in a folder after a flush of the folder. Anything else may have
reached the disk or not, in any order.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator

import pytest

# Functions that change the names in a folder, or flush.
OPERATIONS = ("fsync", "mkdir", "remove", "rename", "replace", "rmdir", "unlink")
# Files, as pairs of path and content.
State = frozenset[tuple[str, bytes]]


@dataclasses.dataclass
class _Disk:
    """Contents of files, and names in folders; the keys are inode numbers."""

    contents: dict[int, bytes] = dataclasses.field(default_factory=dict)
    folders: dict[int, dict[str, int]] = dataclasses.field(default_factory=dict)


class PowerCuts:
    """A context manager that records states before and after every operation.

    Args:
      folder: the folder to record. Its initial content counts as flushed.
      ignored: prefixes of the names of files that are left out of the states.

    Attributes:
      states: all states that a power cut at any time could leave.
      last: those that a power cut at the end could leave.
    """

    def __init__(self, folder: pathlib.Path, ignored: tuple[str, ...] = ()):
        self._folder = folder
        self._ignored = ignored
        self._seen, self._flushed = _Disk(), _Disk()
        # While they are open, their inode numbers are not reused.
        self._descriptors: dict[int, int] = {}
        self.states: set[State] = set()
        self.last: set[State] = set()

    def __enter__(self) -> PowerCuts:
        self._scan()
        self._flushed.contents |= self._seen.contents
        self._flushed.folders |= self._seen.folders
        self._patch = pytest.MonkeyPatch()
        for name in OPERATIONS:
            self._patch.setattr(os, name, self._recorded(getattr(os, name), name))
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()
        self._scan()
        self.last = set(self._possible())
        self.states |= self.last
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def restore(self, state: State, folder: pathlib.Path) -> pathlib.Path:
        """Writes a state as files."""
        for name, content in state:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    def _recorded(self, operation, name):
        def call(*arguments, **keywords):
            self._scan()
            self.states |= set(self._possible())
            result = operation(*arguments, **keywords)
            self._scan()
            if name == "fsync":
                self._flush(os.fstat(arguments[0]).st_ino)
            self.states |= set(self._possible())
            return result

        return call

    def _scan(self) -> None:
        self._seen = _Disk()
        for root, _, names in os.walk(self._folder):
            entries = {}
            for path in pathlib.Path(root).iterdir():
                number = path.stat().st_ino
                entries[path.name] = number
                if number not in self._descriptors:
                    self._descriptors[number] = os.open(path, os.O_RDONLY)
                if path.name in names:
                    self._seen.contents[number] = path.read_bytes()
            self._seen.folders[pathlib.Path(root).stat().st_ino] = entries

    def _flush(self, number: int) -> None:
        if number in self._seen.folders:
            self._flushed.folders[number] = self._seen.folders[number]
        elif number in self._seen.contents:
            self._flushed.contents[number] = self._seen.contents[number]

    def _possible(self) -> Iterator[State]:
        numbers = self._seen.folders.keys() | self._flushed.folders.keys()
        choices = [[(n, names) for names in self._names(n)] for n in numbers]
        for combination in itertools.product(*choices):
            # A file that was never flushed may be empty.
            flushed = self._flushed.contents
            for contents in (flushed, flushed | self._seen.contents):
                root = self._folder.stat().st_ino
                yield frozenset(self._files(root, dict(combination), contents))

    def _names(self, number: int) -> Iterator[dict[str, int]]:
        """Yields the names that a folder may have: any subset of unflushed changes."""
        old = self._flushed.folders.get(number, {})
        new = self._seen.folders.get(number, {})
        changed = [n for n in old.keys() | new.keys() if old.get(n) != new.get(n)]
        changed = [name for name in changed if not name.startswith(self._ignored)]
        for count in range(len(changed) + 1):
            for names in itertools.combinations(changed, count):
                taken = {name: new.get(name) for name in names}
                yield {name: n for name, n in (old | taken).items() if n is not None}

    def _files(self, number, folders, contents, place="") -> Iterator:
        for name, inner in folders.get(number, {}).items():
            if name.startswith(self._ignored):
                continue
            if inner in folders:
                yield from self._files(inner, folders, contents, f"{place}{name}/")
            else:
                yield f"{place}{name}", contents.get(inner, b"")
