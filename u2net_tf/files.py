"""Writes files whole or not at all, and detects changed and damaged ones."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

# Size (bytes) and modification time (ns) of a file; None where it cannot be read.
FileSignature = list[int] | None
# Of a file's name, on all common file systems.
_MAX_NAME_BYTES = 255


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary name beside `path`; moves it there if nothing goes wrong.

    Args:
      path: the file to write. Its folder is made.

    Yields:
      The name to write to. It ends like `path`, so that suffixes keep their meaning.

    Raises:
      OSError: whatever goes wrong inside; it names `path` where it named no file, as
        on a full disk.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: pathlib.Path) -> pathlib.Path:
    """The temporary name: the end of a name to which nothing can be added."""
    prefix = f".partial-{os.getpid()}-"
    end = os.fsencode(path.name)[len(prefix) - _MAX_NAME_BYTES :]
    return path.with_name(prefix + end.decode(errors="ignore"))


def check_writable(path: str | os.PathLike) -> None:
    """Checks that a file can be written, without writing it. Its folder is made.

    Raises:
      OSError: names what stands in the way.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(os.fsencode(path.name)) > _MAX_NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    partial = _partial(path)
    try:
        partial.touch()
    finally:
        partial.unlink(missing_ok=True)


def file_signatures(paths: Sequence[str | os.PathLike]) -> list[FileSignature]:
    """Returns size and modification time of each file, used to detect changes."""
    found: list[FileSignature] = []
    for path in paths:
        try:
            stat = pathlib.Path(path).stat()
        except OSError:
            found.append(None)
        else:
            found.append([stat.st_size, stat.st_mtime_ns])
    return found


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file: whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_text(path: pathlib.Path) -> tuple[str, str]:
    """Reads a UTF-8 file, with or without a byte order mark.

    Args:
      path: the file.

    Returns:
      The decoded text, and an error message that is empty if it is valid.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    # U+FFFD stands for what is not UTF-8; a power failure leaves NUL.
    odd = re.search("[\0\ufffd]", text)
    if odd is None:
        return text, ""
    line = 1 + text.count("\n", 0, odd.start())
    return text, f"expected UTF-8 text. Received: other bytes in line {line}"


def rename_as_damaged(path: pathlib.Path) -> pathlib.Path:
    """Renames a damaged file without replacing another; returns its new path."""
    name = f"{path.name}.damaged"
    number = 1
    while os.path.lexists(renamed := path.with_name(name)):
        number += 1
        name = f"{path.name}.damaged-{number}"
    return path.rename(renamed)
