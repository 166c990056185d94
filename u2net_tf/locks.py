"""Folder locks: one writer or several readers; other runs are refused immediately.

The operating system locks the file `.lock` for a process and unlocks it when the
process ends, however it ends. Next to it, `.lock-holder` identifies the writer, and a
temporary file each reader. They are removed at the end; after `kill -9` they remain,
but do not keep other runs out.
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
# Long enough for a run that is just ending to remove its lock.
_TIMEOUT_SECONDS = 0.2
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_NOT_WRITABLE = (errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Locks a folder for writing, and removes unfinished files of killed runs.

    On file systems without locks the folder is not locked, and a warning is logged.

    Args:
      folder: created if missing; new folders that are still empty at the end are
        removed again.

    Raises:
      InputError: if another run writes to the folder or reads it (`shared`), with its
        host, process and start time; or if the folder is not writable.
      OSError: if a file cannot be written, for example on a full disk.
    """
    folder = pathlib.Path(folder)
    created, lock = _acquire(folder)
    try:
        if lock is not None:
            _write_holder(folder)
        temporary_names.remove_leftovers(folder)
        yield
    finally:
        if lock is not None:
            (folder / HOLDER).unlink(missing_ok=True)
        # Before the release: afterwards the file may belong to another run.
        (folder / LOCK).unlink(missing_ok=True)
        if lock is not None:
            lock.release()
        # They are empty after a refused run.
        files.remove_empty(created)


@contextlib.contextmanager
def shared(folder: str | os.PathLike) -> Iterator[None]:
    """Locks a folder for reading: keeps out runs that write to it, not other readers.

    Without file locks, or where the folder is not writable, nothing is locked.

    Args:
      folder: the folder to read.

    Raises:
      InputError: if a run writes to the folder, with its host, process and start time.
    """
    folder = pathlib.Path(folder)
    descriptor = _acquire_shared(folder)
    if descriptor is None:
        yield
        return
    reader_file = temporary_names.temporary_path(folder / READER)
    try:
        with contextlib.suppress(OSError):
            # Left by a killed run: nobody is writing now.
            (folder / HOLDER).unlink(missing_ok=True)
            reader_file.write_text(_describe_process(), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            reader_file.unlink(missing_ok=True)
        _release_shared(descriptor, folder / LOCK)


def _acquire_shared(folder: pathlib.Path) -> int | None:
    """Returns a descriptor that holds the lock; None where locking is not possible."""
    if sys.platform == "win32":
        # Windows locks cannot be shared.
        return None
    path = folder / LOCK
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        is_new = not path.exists()
        try:
            # Anyone who can read the folder may lock it, whoever created the file.
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # If these differ, the previous holder has removed the file.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
            os.close(descriptor)
        except FileNotFoundError:
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise InputError(
                    folder,
                    expected="a folder that no run writes to",
                    received=_read_holder(folder / HOLDER) or "a run in progress",
                    hint="Wait for it to finish",
                ) from None
            time.sleep(0.02)
        except OSError as error:
            os.close(descriptor)
            if is_new and error.errno in _NO_LOCKS:
                with contextlib.suppress(OSError):
                    path.unlink()
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
    """Returns the folders created, and the lock; None where there are no locks."""
    # A soft lock would outlive a killed process.
    lock = filelock.FileLock(folder / LOCK, fallback_to_soft=False)
    created = []
    try:
        created = files.make_folder(folder)
        lock.acquire(timeout=_TIMEOUT_SECONDS)
    except filelock.Timeout:
        readers = _read_readers(folder)
        raise InputError(
            folder,
            expected="a folder that no other run "
            + ("reads" if readers else "writes to"),
            received=readers or _read_holder(folder / HOLDER) or "a run in progress",
            hint="Wait for it to finish, or use another folder",
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
            "%s: cannot be locked (%s); make sure that no other run writes to it",
            folder,
            error.strerror,
        )
        return created, None
    return created, lock


def _write_holder(folder: pathlib.Path) -> None:
    if previous := _read_holder(folder / HOLDER):
        logging.warning("%s: taking over the lock left by %s", folder, previous)
    (folder / HOLDER).write_text(_describe_process(), encoding="utf-8")


def _describe_process() -> str:
    since = datetime.datetime.now(datetime.timezone.utc)
    return (
        f"process {os.getpid()} on {temporary_names.host()}, since "
        f"{since:%Y-%m-%d %H:%M:%S} UTC\n"
    )


def _read_readers(folder: pathlib.Path) -> str:
    """Lists the processes that read the folder; "" if none is known."""
    temporary_names.remove_leftovers(folder)
    reader_files = sorted(folder.glob(f"{temporary_names.PREFIX}*{READER}"))
    return "; ".join(filter(None, map(_read_holder, reader_files)))


def _read_holder(path: pathlib.Path) -> str:
    """Describes the process that holds, or last held, a lock; "" if unknown."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[0]
