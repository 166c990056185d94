"""Converts errors of the operating system, also those that libraries report."""

from __future__ import annotations

import errno
import os

from u2net_tf.errors import InputError

# errno -> what was expected, and what was received; "" if the system's message says it.
_TEXTS: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("an existing file or folder", ""),
    errno.EISDIR: ("a file", "a folder"),
    errno.ENOTDIR: ("a path of folders", "a file in place of one"),
    errno.EEXIST: ("nothing of this name", "a file or folder"),
    errno.EACCES: ("permission to use it", ""),
    errno.EPERM: ("permission to use it", ""),
    errno.EROFS: ("permission to write it", ""),
    errno.ENOSPC: ("space on the disk", ""),
    errno.EDQUOT: ("space within the quota", ""),
    errno.ENAMETOOLONG: ("a shorter name", ""),
    errno.EMFILE: ("a higher limit of open files (ulimit -n)", ""),
}
_OTHERS = ("a file that can be read and written", "")
# Errors when writing, which some libraries only report by the system's message.
_WHEN_WRITING = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
)


def as_input_error(error: OSError) -> InputError | None:
    """Returns an error that names the path; None for errors with their own message.

    Args:
      error: raised by a function of the operating system, or by this program.
    """
    if error.errno is None or error.strerror is None:
        return None
    paths = [os.fsdecode(p) for p in (error.filename, error.filename2) if p is not None]
    expected, received = _TEXTS.get(error.errno, _OTHERS)
    return InputError(
        " -> ".join(paths),
        expected=expected,
        received=received or error.strerror[:1].lower() + error.strerror[1:],
    )


def of_library(
    library: str, message: str, path: str | os.PathLike | None = None
) -> OSError:
    """Returns the error of the system behind an error of a library when writing.

    Args:
      library: name of the library.
      message: its message.
      path: what was written; None if the caller adds it, see `files.errors_name`.
    """
    number, text = errno.EIO, f"an error of {library}: {message}"
    for each in _WHEN_WRITING:
        if os.strerror(each) in message:
            number, text = each, os.strerror(each)
    return OSError(number, text, None if path is None else os.fspath(path))
