"""Temporary names of what is being written, and removal of what dead processes left.

A name says whose it is: `.partial-HOST~NAMESPACE~PROCESS~RANDOM~NAME`. Containers that
share a hostname may number their processes alike, each in a namespace of its own; so
the name holds the number of that, too.
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

# Of a file's name, on all common file systems.
MAX_NAME_BYTES = 255
PREFIX = ".partial-"
_NAME = re.compile(
    re.escape(PREFIX) + "(?P<place>[^~]+~[0-9]+)~(?P<process>[0-9]{1,9})~[0-9a-f]{8}~"
)
# Of what another host, another container or an earlier version wrote, nobody here can
# tell whether it is still being written; for so long nothing has been.
MAX_AGE_SECONDS = 7 * 24 * 3600


def temporary_path(path: str | os.PathLike) -> pathlib.Path:
    """Returns a new name beside `path` that no other process chooses.

    Args:
      path: the final path. The temporary name ends like it, so that suffixes keep their
        meaning; the front of a name that is too long for more is left out.
    """
    path = pathlib.Path(path)
    prefix = f"{PREFIX}{_place()}~{os.getpid()}~{secrets.token_hex(4)}~"
    end = os.fsencode(path.name)[len(prefix) - MAX_NAME_BYTES :]
    return path.with_name(prefix + end.decode(errors="ignore"))


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Removes files and folders with temporary names whose writers are gone.

    Those of a process of this host that has ended, and all that were last written to
    more than a week ago. What cannot be removed stays.
    """
    for path in pathlib.Path(folder).glob(f"{PREFIX}*"):
        # Another process may remove it at the same time, or still own it.
        with contextlib.suppress(OSError):
            if _is_left(path):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def host() -> str:
    """Name of this host, or of the container."""
    return socket.gethostname()


def _place() -> str:
    """The host and the namespace within which numbers of processes are unique."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        # Not Linux.
        namespace = 0
    return f"{re.sub('[^A-Za-z0-9.-]', '_', host())}~{namespace}"


def _is_left(path: pathlib.Path) -> bool:
    found = _NAME.match(path.name)
    if found and found["place"] == _place() and not _is_running(int(found["process"])):
        return True
    if not found and not re.match(migrations.OBSOLETE_TEMPORARY_NAME, path.name):
        # Of another program.
        return False
    inside = path.iterdir() if path.is_dir() else ()
    newest = max(each.lstat().st_mtime for each in (path, *inside))
    return time.time() - newest > MAX_AGE_SECONDS


def _is_running(process: int) -> bool:
    if os.name == "nt":
        # There a signal of 0 is Ctrl-C.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Of another user.
        return True
    return True
