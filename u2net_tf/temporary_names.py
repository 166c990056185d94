"""Temporary names of files being written, and removal of those left by dead processes.

A name identifies the writer: `.partial-HOST~NAMESPACE~PROCESS~RANDOM~NAME`. Containers
with the same hostname may have equal process IDs, each in its own namespace; therefore
the name includes the number of the namespace.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import secrets
import shutil
import socket
import time

from u2net_tf import migrations

# Limit of a file name on all common file systems.
MAX_NAME_BYTES = 255
PREFIX = ".partial-"
_NAME = re.compile(
    re.escape(PREFIX) + "(?P<place>[^~]+~[0-9]+)~(?P<process>[0-9]{1,9})~[0-9a-f]{8}~"
)
# Whether another host, another container or an earlier version is still writing a file
# cannot be checked; after this time without a write, it counts as abandoned.
MAX_AGE_SECONDS = 7 * 24 * 3600


def temporary_path(path: str | os.PathLike) -> pathlib.Path:
    """Returns a new name in the folder of `path` that no other process chooses.

    Args:
      path: the final path. The temporary name ends with its name, so that suffixes keep
        their meaning; a name that would be too long loses its beginning.
    """
    path = pathlib.Path(path)
    prefix = f"{PREFIX}{_place()}~{os.getpid()}~{secrets.token_hex(4)}~"
    end = os.fsencode(path.name)[len(prefix) - MAX_NAME_BYTES :]
    return path.with_name(prefix + end.decode(errors="ignore"))


def is_temporary(path: str | bytes | os.PathLike) -> bool:
    """Returns whether a path is a temporary one, or in a temporary folder."""
    parts = pathlib.Path(os.fsdecode(path)).parts
    return any(part.startswith(PREFIX) for part in parts)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Removes files and folders with temporary names whose writers are gone.

    These are the files of processes of this host that have ended, and all others that
    were last written to more than a week ago. Files that cannot be removed are kept.
    """
    for path in pathlib.Path(folder).glob(f"{PREFIX}*"):
        # Another process may remove it at the same time, or still own it.
        with contextlib.suppress(OSError):
            if _is_leftover(path):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def host() -> str:
    """Returns the name of this host or container."""
    return socket.gethostname()


def _place() -> str:
    """Returns the host and the namespace within which process IDs are unique."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        # Not Linux.
        namespace = 0
    return f"{re.sub('[^A-Za-z0-9.-]', '_', host())}~{namespace}"


def _is_leftover(path: pathlib.Path) -> bool:
    found = _NAME.match(path.name)
    if found and found["place"] == _place() and not _is_running(int(found["process"])):
        return True
    if not found and not re.match(migrations.OBSOLETE_TEMPORARY_NAME, path.name):
        # A file of another program.
        return False
    inside = path.iterdir() if path.is_dir() else ()
    newest = max(each.lstat().st_mtime for each in (path, *inside))
    return time.time() - newest > MAX_AGE_SECONDS


def _is_running(process: int) -> bool:
    if os.name == "nt":
        # On Windows, signal 0 is Ctrl-C.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # The process belongs to another user.
        return True
    return True
