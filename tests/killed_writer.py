"""A temporary file as a killed process leaves it."""

import os

from u2net_tf import temporary_names

# No process has this number.
DEAD = 999_999_999


def leave_temporary_file(path):
    """Creates the temporary file of a process that was writing `path`; returns it."""
    name = temporary_names.temporary_path(path).name
    left = path.with_name(name.replace(f"~{os.getpid()}~", f"~{DEAD}~", 1))
    left.write_bytes(b"half")
    return left
