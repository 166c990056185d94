"""One run at a time writes to a folder, or several read it: others are refused at once.

The operating system locks the file `.lock` for a process and unlocks it when the
process ends, however it ends. `.lock-holder` beside it says who writes, and a file with
a temporary name who reads. They are removed at the end; after `kill -9` they stay, and
keep nobody out.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import filelock
from absl import logging

from u2net_tf import files, temporary_names
from u2net_tf.errors import InputError

if sys.platform != "win32":
    import fcntl

LOCK, HOLDER, READER = ".lock", ".lock-holder", ".lock-reader"
# Long enough for a run that ends at this moment to remove its lock.
_PATIENCE_SECONDS = 0.2
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
_NOT_WRITABLE = (errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps other runs out of a folder, and removes what dead ones were writing in it.

    On a file system without locks the folder is not locked, which is logged.

    Args:
      folder: is made; folders that are still empty at the end are removed again.

    Raises:
      InputError: if another run writes to the folder or reads it (`shared`), naming its
        host, its process and when it began; if the folder cannot be written to.
      OSError: on a full disk, for example.
    """
    folder = pathlib.Path(folder)
    made, lock = _acquire(folder)
    try:
        if lock is not None:
            _note_holder(folder)
        temporary_names.remove_leftovers(folder)
        yield
    finally:
        if lock is not None:
            (folder / HOLDER).unlink(missing_ok=True)
        # Before it is released: afterwards it may be that of another run.
        (folder / LOCK).unlink(missing_ok=True)
        if lock is not None:
            lock.release()
        for path in reversed(made):
            # It is not empty, unless the run was refused.
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def shared(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps runs that write to a folder out of it, not those that read it.

    Without locks, or where the folder cannot be written to, nothing is locked.

    Args:
      folder: that is read.

    Raises:
      InputError: if a run writes to the folder, naming its host, its process and when
        it began.
    """
    folder = pathlib.Path(folder)
    descriptor = _share(folder)
    if descriptor is None:
        yield
        return
    note = temporary_names.temporary_path(folder / READER)
    try:
        with contextlib.suppress(OSError):
            # Of a killed one: none writes now.
            (folder / HOLDER).unlink(missing_ok=True)
            note.write_text(_describe_process(), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)
        _release_shared(descriptor, folder / LOCK)


def _share(folder: pathlib.Path) -> int | None:
    """Returns a descriptor that holds the lock; None where there is none to be had."""
    if sys.platform == "win32":
        # There a lock has one holder.
        return None
    path = folder / LOCK
    tries_until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            # Anyone who reads the folder may lock it, whoever made the file.
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # Whoever held it before has removed the file, if this is another one.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
            os.close(descriptor)
        except FileNotFoundError:
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > tries_until:
                raise InputError(
                    folder,
                    expected="a folder that no run writes to",
                    received=_read_line(folder / HOLDER) or "one that is running",
                    hint="Wait for its end",
                ) from None
            time.sleep(0.02)
        except OSError:
            os.close(descriptor)
            return None


def _release_shared(descriptor: int, path: pathlib.Path) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            # The last reader removes the file, before others can lock it.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(
    folder: pathlib.Path,
) -> tuple[list[pathlib.Path], filelock.BaseFileLock | None]:
    """Returns the folders made, and the lock; None where there are no locks."""
    lock = filelock.FileLock(folder / LOCK)
    made = []
    try:
        made = files.make_folder(folder)
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except filelock.Timeout:
        readers = _read_readers(folder)
        raise InputError(
            folder,
            expected="a folder that no other run "
            + ("reads" if readers else "writes to"),
            received=readers or _read_line(folder / HOLDER) or "one that is running",
            hint="Wait for its end, or use another folder",
        ) from None
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise InputError(
                folder,
                expected="a folder that can be written to",
                received=error.strerror,
            ) from None
        if error.errno not in _NO_LOCKS:
            raise
        logging.warning(
            "%s: cannot be locked (%s); see to it that no other run writes to it",
            folder,
            error.strerror,
        )
        return made, None
    return made, lock


def _note_holder(folder: pathlib.Path) -> None:
    if left := _read_line(folder / HOLDER):
        logging.warning("%s: taking over the lock that %s left behind", folder, left)
    (folder / HOLDER).write_text(_describe_process(), encoding="utf-8")


def _describe_process() -> str:
    since = datetime.datetime.now(datetime.timezone.utc)
    return (
        f"process {os.getpid()} on {temporary_names.host()}, since "
        f"{since:%Y-%m-%d %H:%M:%S} UTC\n"
    )


def _read_readers(folder: pathlib.Path) -> str:
    """Says who reads the folder; "" if none is known to."""
    temporary_names.remove_leftovers(folder)
    notes = sorted(folder.glob(f"{temporary_names.PREFIX}*{READER}"))
    return "; ".join(filter(None, map(_read_line, notes)))


def _read_line(path: pathlib.Path) -> str:
    """Says who holds the lock, or held it last; "" if that is not known."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[0]
