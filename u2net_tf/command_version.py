"""The flag --version, which every command has."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

from absl import flags

from u2net_tf import file_format
from u2net_tf.source_commit import source_commit

_NAME = "version"
# Name of a library -> packages that may provide it.
_LIBRARIES = {"TensorFlow": ("tensorflow", "tensorflow-cpu"), "Keras": ("keras",)}


class _VersionFlag(flags.BooleanFlag):
    """Prints the version and ends the program, like absl's --help."""

    def __init__(self) -> None:
        text = "Print versions and exit."
        super().__init__(_NAME, False, text, allow_override=True)

    def parse(self, argument: str | bool | None) -> None:
        """Prints if it is set."""
        super().parse(argument)
        if self.value:
            print(versions())
            sys.exit(0)


def define() -> None:
    """Defines the flag, unless it is defined."""
    if _NAME not in flags.FLAGS:
        # Not under the command's name, so that its own flags stand alone in --help.
        flags.DEFINE_flag(_VersionFlag(), module_name=__name__)


def versions() -> str:
    """Returns two lines: the program, and what it runs on. Imports none of it."""
    found = [f"{name} {_version(packages)}" for name, packages in _LIBRARIES.items()]
    commit = source_commit()
    known = [f"commit {commit}"] if commit else []
    known += [*found, f"Python {platform.python_version()}"]
    return f"{file_format.version()}\n{', '.join(known)}"


def _version(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"
