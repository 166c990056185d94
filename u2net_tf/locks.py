"""One run at a time in a folder: a second one is refused at once, saying who is there.

The operating system locks the file `.lock` for a process and unlocks it when the
process ends, however it ends. `.lock-holder` beside it says who holds the lock. Both
are removed at the end; after `kill -9` they stay, and keep nobody out.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import pathlib
from collections.abc import Iterator

import filelock
from absl import logging

from u2net_tf import files, temporary_names
from u2net_tf.errors import InputError

LOCK, HOLDER = ".lock", ".lock-holder"
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
      InputError: if another run is in the folder, naming its host, its process and when
        it began; if the folder cannot be written to.
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
        raise InputError(
            folder,
            expected="a folder that no other run writes to",
            received=_read_holder(folder) or "one that is running",
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
    if left := _read_holder(folder):
        logging.warning("%s: taking over the lock that %s left behind", folder, left)
    since = datetime.datetime.now(datetime.timezone.utc)
    (folder / HOLDER).write_text(
        f"process {os.getpid()} on {temporary_names.host()}, since "
        f"{since:%Y-%m-%d %H:%M:%S} UTC\n",
        encoding="utf-8",
    )


def _read_holder(folder: pathlib.Path) -> str:
    """Says who holds the lock, or held it last; "" if that is not known."""
    try:
        text = (folder / HOLDER).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[0]
