"""Records how a folder is written, and gives every state that a power cut may leave.

What a program sees of its files, a disk has only where it was flushed: of a file's
content once the file was, of the names in a folder once the folder was. Anything else
may have reached the disk or not, in any order.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator

import pytest

# What changes the names in a folder, or flushes.
OPERATIONS = ("fsync", "mkdir", "remove", "rename", "replace", "rmdir", "unlink")
# A file: path -> content.
State = frozenset[tuple[str, bytes]]


@dataclasses.dataclass
class _Disk:
    """What was flushed, and what a program sees; all by number of the inode."""

    contents: dict[int, bytes] = dataclasses.field(default_factory=dict)
    folders: dict[int, dict[str, int]] = dataclasses.field(default_factory=dict)


class PowerCuts:
    """A context manager; states are taken before and after every operation within.

    Args:
      folder: what is recorded. What it holds at first has been flushed.
      ignored: beginnings of names whose files are left out of the states.

    Attributes:
      states: all that may be found after a power cut at any time.
      last: those after one at the end.
    """

    def __init__(self, folder: pathlib.Path, ignored: tuple[str, ...] = ()):
        self._folder = folder
        self._ignored = ignored
        self._seen, self._flushed = _Disk(), _Disk()
        # Keep the numbers from being used again.
        self._descriptors: dict[int, int] = {}
        self.states: set[State] = set()
        self.last: set[State] = set()

    def __enter__(self) -> PowerCuts:
        self._look()
        self._flushed.contents |= self._seen.contents
        self._flushed.folders |= self._seen.folders
        self._patch = pytest.MonkeyPatch()
        for name in OPERATIONS:
            self._patch.setattr(os, name, self._recorded(getattr(os, name), name))
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()
        self._look()
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
            self._look()
            self.states |= set(self._possible())
            result = operation(*arguments, **keywords)
            self._look()
            if name == "fsync":
                self._flush(os.fstat(arguments[0]).st_ino)
            self.states |= set(self._possible())
            return result

        return call

    def _look(self) -> None:
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
            # Of a file that was never flushed nothing may be there.
            flushed = self._flushed.contents
            for contents in (flushed, flushed | self._seen.contents):
                root = self._folder.stat().st_ino
                yield frozenset(self._files(root, dict(combination), contents))

    def _names(self, number: int) -> Iterator[dict[str, int]]:
        """The names in a folder: any of the changes since it was flushed."""
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
