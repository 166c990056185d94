"""The commit of the program, if it runs from a checkout of its repository."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess

_ROOT = pathlib.Path(__file__).parents[1]
_COMMAND = ("git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12")


@functools.cache
def source_commit() -> str | None:
    """Returns the commit, with "-dirty" if files differ from it; None if not known."""
    # An installed package may be inside the checkout of another project.
    if not (_ROOT / ".git").exists():
        return None
    # Git sets these for its hooks, to the repository that they run in.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    # No lock is needed: the repository is only read.
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            _COMMAND,
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
            # Ctrl-C in a terminal is meant for the calling command.
            start_new_session=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
