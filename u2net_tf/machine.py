"""CPU cores, memory, and the import of TensorFlow without its messages."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from u2net_tf import stop_signals
from u2net_tf.errors import StoppedError

# `pip install --no-deps` leaves it out.
NO_TENSORFLOW = (
    "TensorFlow is required but not installed: pip install u2net-tf, or with CUDA "
    "'u2net-tf[gpu]'"
)


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Memory limits of a container, in versions 2 and 1 of Linux's control groups.
_CONTAINER_LIMITS = (
    pathlib.Path("/sys/fs/cgroup/memory.max"),
    pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_STATM = pathlib.Path("/proc/self/statm")
# Assumed where the system does not report its memory, as on Windows.
_UNKNOWN_MEMORY_BYTES = 16 * 10**9


def memory_bytes() -> int:
    """Returns the memory of the machine, or the limit of the container if lower."""
    sizes = []
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CONTAINER_LIMITS:
        # The file contains "max" if there is no limit.
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(path.read_text(encoding="ascii")))
    return min(sizes, default=_UNKNOWN_MEMORY_BYTES)


def resident_bytes() -> int:
    """Returns the resident memory of this process; 0 where it is unknown."""
    try:
        _, resident, *_ = _STATM.read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(resident) * os.sysconf("SC_PAGE_SIZE")


def require_tensorflow() -> None:
    """Checks that TensorFlow is installed, without importing it.

    Raises:
      StoppedError: if it is not.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise StoppedError(NO_TENSORFLOW)


def import_tensorflow() -> None:
    """Imports TensorFlow and discards what it writes to stderr while it loads.

    Those lines are written before any log level takes effect. They are shown if the
    import fails.

    Raises:
      StoppedError: if it is not installed.
    """
    if sys.modules.get("tensorflow") is not None:
        return
    require_tensorflow()
    with _held_stderr() if hasattr(os, "fork") else contextlib.nullcontext():
        import tensorflow  # noqa: F401


# Marks the end of held text that is to be discarded.
_DISCARD = b"\0discard\0"


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Holds back the output to stderr, and shows it unless the block succeeds.

    A separate process holds it, since native code may abort this one before it could
    show anything.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        os.close(writer)
        _hold(reader)
    os.close(reader)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
        os.write(2, _DISCARD)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.waitpid(holder, 0)


def _hold(reader: int) -> NoReturn:
    """Reads a pipe to its end and writes the text to stderr unless it is discarded."""
    try:
        # Ctrl-C reaches every process of the terminal; this one ends with its parent.
        stop_signals.ignore()
        held = b""
        while chunk := os.read(reader, 1 << 16):
            held += chunk
        if not held.endswith(_DISCARD):
            os.write(2, held)
    finally:
        # Python's exit handlers belong to the parent process.
        os._exit(0)
