"""Reads zip archives from untrusted sources.

Members are read into memory and never extracted to disk, so that no member name is used
as a path. Only uncompressed members are accepted, so that an archive cannot expand to
more bytes than its own size.
"""

from __future__ import annotations

import errno
import pathlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeVar

from typing_extensions import Self

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.wording import first_few

_Read = TypeVar("_Read")
_START = b"PK\x03\x04"
# Errors that `zipfile` raises for invalid archives.
_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    struct.error,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
    MemoryError,
)


class ZipArchive:
    """An open archive; a context manager.

    Args:
      path: the file.
      expected: description of the expected file, for error messages.

    Raises:
      InputError: if the file is missing or damaged, or has members that are compressed,
        encrypted, not regular files or not uniquely named.
      OSError: if the file cannot be read.
    """

    def __init__(self, path: pathlib.Path, expected: str):
        self.path = path
        self._expected = expected
        if not path.is_file():
            received = files.what_is_at(path)
            raise InputError(path, expected=expected, received=received)
        with path.open("rb") as file:
            start = file.read(len(_START))
        if start != _START:
            received = f"a file starting with {start!r}" if start else "an empty file"
            raise InputError(path, expected=f"{expected}, a zip", received=received)
        self._zip = self._translate_errors(lambda: zipfile.ZipFile(path))
        try:
            self._members = self._checked_members()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._zip.close()

    @property
    def sizes(self) -> Mapping[str, int]:
        """Name -> number of bytes of each member, in the order of the archive."""
        return {name: info.file_size for name, info in self._members.items()}

    def read(self, name: str) -> bytes:
        """Reads a member.

        Raises:
          InputError: if there is no such member, or it is damaged.
        """
        if name not in self._members:
            raise InputError(
                self.path,
                expected=f"a member {name}",
                received=first_few([*map(repr, self._members)]) or "none",
            )
        info = self._members[name]
        content = self._translate_errors(lambda: self._zip.read(info), name)
        if len(content) != info.file_size:
            raise InputError(
                f"{self.path}: {name}",
                expected=f"{info.file_size:,} bytes",
                received=f"{len(content):,}",
            )
        return content

    def _checked_members(self) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        total, size = 0, self.path.stat().st_size
        for info in self._zip.infolist():
            place = f"{self.path}: {info.orig_filename!r:.80}"
            if info.filename in found:
                raise InputError(
                    place, expected="a unique name", received="a duplicate"
                )
            if info.flag_bits & 1 or info.compress_type != zipfile.ZIP_STORED:
                received = "an encrypted" if info.flag_bits & 1 else "a compressed"
                raise InputError(
                    place,
                    expected="a member without compression or encryption",
                    received=f"{received} one",
                )
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() or kind not in (0, stat.S_IFREG):
                received = "a folder" if info.is_dir() else "a link or a device"
                raise InputError(place, expected="a file", received=received)
            total += info.file_size
            if info.file_size != info.compress_size or total > size:
                raise InputError(
                    place,
                    expected=f"at most {size:,} bytes of members, the size of the file",
                    received=f"{max(total, info.file_size):,}",
                )
            found[info.filename] = info
        return found

    def _translate_errors(self, read: Callable[[], _Read], member: str = "") -> _Read:
        """Returns `read()`; its errors become an `InputError` that names the file."""
        place = f"{self.path}: {member}" if member else self.path
        try:
            return read()
        except InputError:
            raise
        except OSError as error:
            # An invalid file position, such as a negative one.
            if error.errno != errno.EINVAL:
                raise
            problem: Exception = error
        except _DAMAGE as error:
            problem = error
        raise InputError(
            place, expected=f"{self._expected}, an intact zip", received=problem
        )
