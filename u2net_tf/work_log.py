"""What was made from which files with which settings: the one rule of resuming.

Finished work is recorded with its key, a hash of the settings and of the signatures of
the input files. It is done again unless there is a record with the same key. A record
is a `schema.model` with a field `key`: a file beside what was made, or a line of a log.
The part files of `data_prep.convert` carry their key themselves.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Sequence
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat


class Keyed(Protocol):
    """What a record has at least."""

    @property
    def key(self) -> str | None:
        """What `work_key` returned; None while the work is in progress."""
        ...


Record = TypeVar("Record", bound=Keyed)


def work_key(
    settings: Sequence[object], signatures: Sequence[files.FileSignature]
) -> str:
    """Key of a piece of work: another one for other settings or changed files.

    Args:
      settings: all that the outcome depends on, the names of the input files included,
        as JSON can hold it.
      signatures: `files.file_signatures` of the input files.
    """
    return hashlib.sha256(json.dumps([*settings, signatures]).encode()).hexdigest()


def read_record(path: pathlib.Path, file_format: FileFormat[Record]) -> Record | None:
    """Reads the record of one piece of work.

    Args:
      path: its file.
      file_format: its format.

    Returns:
      None if there is none, or one left incomplete by a machine that went down.
    """
    try:
        return file_format.load(path)
    except (OSError, InputError):
        return None


def write_record(
    path: pathlib.Path, file_format: FileFormat[Record], record: Record
) -> None:
    """Writes the record of one piece of work: whole or not at all."""
    files.write_text(path, json.dumps(file_format.to_dict(record)))


class Log(Generic[Record]):
    """A file of many records, a line each; a context manager while it is written.

    Args:
      path: the file.
      file_format: format of a line.
    """

    def __init__(self, path: pathlib.Path, file_format: FileFormat[Record]):
        self._path = path
        self._format = file_format

    def read(self) -> dict[str | None, Record]:
        """Records by key, without lines that are incomplete or of another format."""
        records = {}
        if self._path.is_file():
            text = self._path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                try:
                    record = self._format.from_text(line, self._path)
                except InputError:
                    continue
                records[record.key] = record
        return records

    def __enter__(self) -> Log[Record]:
        self._stream = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with files.errors_name(self._path):
            self._stream.close()

    def append(self, record: Record) -> None:
        """Adds a record, which is in the file when this returns."""
        # The line before may be one that a killed run left incomplete.
        with files.errors_name(self._path):
            self._stream.write(f"\n{json.dumps(self._format.to_dict(record))}")
            self._stream.flush()
