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
    """Defines the flag, unless it is already defined."""
    if _NAME not in flags.FLAGS:
        # Registered for this module, so that --help lists only the command's flags.
        flags.DEFINE_flag(_VersionFlag(), module_name=__name__)


def versions() -> str:
    """Returns two lines, the program and its environment; imports no library."""
    libraries = [f"{name} {_version(found)}" for name, found in _LIBRARIES.items()]
    commit = source_commit()
    parts = [f"commit {commit}"] if commit else []
    parts += [*libraries, f"Python {platform.python_version()}"]
    return f"{file_format.version()}\n{', '.join(parts)}"


def _version(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"
