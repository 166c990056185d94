"""Atomic writing of files, and detection of changed and damaged ones.

A file gets its final name once its content is on disk, so even a power failure leaves
either the old or the new file, provided that disk and file system honour `fsync`.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator, Sequence

from u2net_tf import temporary_names
from u2net_tf.errors import InputError

# Size (bytes) and modification time (ns) of a file; None where it cannot be read.
FileSignature = list[int] | None
# Errors where folders cannot be flushed: on some network file systems and on Windows.
_NO_FOLDER_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Writes a file atomically: renames a temporary file to `path` on success.

    Args:
      path: the file to write. Its folder is created.

    Yields:
      The temporary path to write to. It ends like `path`, so that writers that go by
      the suffix work.

    Raises:
      OSError: any raised in the context, with the name of the file; see `errors_name`.
    """
    path = pathlib.Path(path)
    make_folder(path.parent)
    partial = temporary_names.temporary_path(path)
    try:
        with errors_name(path):
            yield partial
            sync_file(partial)
            os.replace(partial, path)
            sync_folder(path.parent)
    finally:
        # On a read-only file system, this fails even if the file does not exist; the
        # error would replace that of writing, which names `path`.
        with contextlib.suppress(OSError):
            partial.unlink()


def sync_file(path: str | os.PathLike) -> None:
    """Waits until the content of a file is on disk.

    Raises:
      OSError: if it cannot be written, as on a full disk.
    """
    _sync(path, os.O_RDWR)


def sync_folder(folder: str | os.PathLike) -> None:
    """Waits until the entries of a folder are on disk, where the system supports it.

    Raises:
      OSError: if they cannot be written.
    """
    try:
        _sync(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _sync(path: str | os.PathLike, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Creates a folder durably; returns the folders created, outermost first."""
    folder = pathlib.Path(folder)
    if folder.is_dir():
        return []
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)
    return missing


def remove_empty(created: Sequence[pathlib.Path]) -> None:
    """Removes folders created by `make_folder`, except those that have content."""
    for folder in reversed(created):
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def errors_name(path: str | os.PathLike) -> Iterator[None]:
    """Names the file in errors without a name, or with that of a temporary file.

    The error of a full disk, for example, has no name.

    Args:
      path: the file being written.

    Raises:
      OSError: any raised in the context.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        if error.errno is None or not (
            name is None or temporary_names.is_temporary(name)
        ):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_writable(path: str | os.PathLike) -> None:
    """Checks that a file can be written, without creating it or its folder.

    Raises:
      OSError: if it cannot be written.
    """
    path = pathlib.Path(path)
    folder, missing = path.parent, [path.name]
    while not os.path.lexists(folder):
        missing.append(folder.name)
        folder = folder.parent
    if any(len(os.fsencode(name)) > temporary_names.MAX_NAME_BYTES for name in missing):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    # Where a file can be created, so can a missing folder.
    partial = temporary_names.temporary_path(folder / path.name)
    with errors_name(path):
        try:
            partial.touch()
        finally:
            partial.unlink(missing_ok=True)


def absolute_path(path: str | os.PathLike) -> pathlib.Path:
    """Returns an absolute path without "..", resolved as the operating system does.

    `os.path.abspath` resolves "link/.." to the folder that contains the link; the
    system resolves it to the parent of the link's target. Links are kept where both
    agree.

    Args:
      path: a file or folder, which need not exist.
    """
    absolute = os.path.abspath(path)
    if ".." in pathlib.PurePath(path).parts:
        target = os.path.realpath(path)
        if target != os.path.realpath(absolute):
            folder, name = os.path.split(path)
            absolute = target
            if name not in ("", "."):
                absolute = os.path.join(os.path.realpath(folder), name)
    return pathlib.Path(os.path.normpath(absolute))


def what_is_at(path: str | os.PathLike) -> str:
    """Describes what a path is instead of a file, for messages: "a folder"."""
    if os.path.isdir(path):
        return "a folder"
    if os.path.islink(path):
        try:
            os.stat(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return "a link that leads back to itself"
            return f"a broken link to {os.readlink(os.fspath(path))}"
    if os.path.exists(path):
        return "neither a file nor a folder"
    return "no such file"


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
    """Writes a UTF-8 text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_text(path: pathlib.Path) -> tuple[str, str]:
    """Reads a UTF-8 file, with or without a byte order mark.

    Args:
      path: the file.

    Returns:
      The decoded text, and an error message that is empty if it is valid.
    """
    text, received = _decode(path.read_bytes())
    return text, received and f"expected UTF-8 text. Received: {received}"


def require_text(path: pathlib.Path, expected: str = "text") -> str:
    """Reads a UTF-8 file, with or without a byte order mark.

    Args:
      path: the file.
      expected: description of the content, for error messages.

    Raises:
      InputError: if it is not UTF-8 text.
      OSError: if it cannot be read.
    """
    text, received = _decode(path.read_bytes())
    if received:
        raise InputError(
            path,
            expected=f"{expected}, in UTF-8",
            received=received,
            hint="Save it as UTF-8",
        )
    return text


def _decode(content: bytes) -> tuple[str, str]:
    """Returns the text, and what the content is instead of UTF-8; "" if it is valid."""
    text = content.decode("utf-8-sig", errors="replace")
    # Universal newlines, as when a file is opened as text.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return text, "UTF-16"
    # Power failures leave NUL bytes; UTF-16 without a byte order mark contains them.
    start = content.find(b"\0")
    if start < 0:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            start = error.start
        else:
            return text, ""
    line = 1 + content.count(b"\n", 0, start)
    return text, f"invalid bytes in line {line}"


def rename_as_damaged(path: pathlib.Path) -> pathlib.Path:
    """Renames a damaged file without replacing others; returns its new path."""
    name = f"{path.name}.damaged"
    number = 1
    while os.path.lexists(renamed := path.with_name(name)):
        number += 1
        name = f"{path.name}.damaged-{number}"
    return path.rename(renamed)
