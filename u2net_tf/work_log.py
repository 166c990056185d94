"""Records of finished work, which tell resumed runs what to skip.

Finished work is recorded with its key, a hash of the settings and of the signatures of
the input files. It is redone unless a record with the same key exists. A record is a
`schema.model` with a field `key`: a file next to the output, or a line of a log. The
part files of `data_prep.convert` contain their key themselves.
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
    """The required attribute of a record."""

    @property
    def key(self) -> str | None:
        """Key from `work_key`; None while the work is in progress."""
        ...


Record = TypeVar("Record", bound=Keyed)


def work_key(
    settings: Sequence[object], signatures: Sequence[files.FileSignature]
) -> str:
    """Returns the key of a piece of work, which changes with settings and input files.

    Args:
      settings: everything that the outcome depends on, including the names of the input
        files, as JSON values.
      signatures: `files.file_signatures` of the input files.
    """
    return hashlib.sha256(json.dumps([*settings, signatures]).encode()).hexdigest()


def read_record(path: pathlib.Path, file_format: FileFormat[Record]) -> Record | None:
    """Reads the record of one piece of work.

    Args:
      path: file of the record.
      file_format: format of the record.

    Returns:
      The record; None if it is missing, or incomplete after a crash.
    """
    try:
        return file_format.load(path)
    except (OSError, InputError):
        return None


def write_record(
    path: pathlib.Path, file_format: FileFormat[Record], record: Record
) -> None:
    """Writes the record of one piece of work atomically."""
    files.write_text(path, json.dumps(file_format.to_dict(record)))


class Log(Generic[Record]):
    """A file with one record per line; a context manager while it is written.

    Args:
      path: the file.
      file_format: format of a line.
    """

    def __init__(self, path: pathlib.Path, file_format: FileFormat[Record]):
        self._path = path
        self._format = file_format

    def read(self) -> dict[str | None, Record]:
        """Reads records by key; skips incomplete lines and those in other formats."""
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
        """Appends a record and flushes it to the file."""
        # The previous line may have been left incomplete by a killed run.
        with files.errors_name(self._path):
            self._stream.write(f"\n{json.dumps(self._format.to_dict(record))}")
            self._stream.flush()
