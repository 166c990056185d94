"""Expands flagfiles on a command line, given by path or by name if installed.

absl reads `--flagfile=PATH`, but does not support names. Therefore flagfiles are
replaced by their lines before absl parses the command line.
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Iterator, Sequence

from u2net_tf import files
from u2net_tf.errors import InputError

_FLAGS = ("--flagfile", "-flagfile")
_COMMENTS = ("#", "//")
# Other packages with commands, such as `tools`, have no flagfiles.
_PACKAGES_WITH_FLAGFILES = ("u2net_tf", "data_prep")


def expand(argv: Sequence[str], package: str) -> list[str]:
    """Replaces every flagfile of a command line by its lines.

    Args:
      argv: the command line, starting with the program.
      package: the package whose flagfiles can be given by name: "u2net_tf" or
        "data_prep"; any other counts as "u2net_tf".

    Raises:
      InputError: if a flagfile does not exist or includes itself.
    """
    return [*argv[:1], *_expanded(argv[1:], _folder(package), ())]


def _folder(package: str) -> pathlib.Path:
    """Returns the folder of the flagfiles that are installed with a package."""
    if package not in _PACKAGES_WITH_FLAGFILES:
        package = _PACKAGES_WITH_FLAGFILES[0]
    return pathlib.Path(importlib.import_module(package).__path__[0], "flagfiles")


def _expanded(
    arguments: Sequence[str], folder: pathlib.Path, within: tuple[pathlib.Path, ...]
) -> Iterator[str]:
    """Yields the arguments, with flagfiles replaced by their lines.

    Args:
      arguments: arguments of a command line, or the lines of a flagfile.
      folder: folder in which names are looked up.
      within: the chain of flagfiles that include these arguments.
    """
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            # Nothing after it is a flag.
            yield argument
            yield from remaining
            return
        flag, equals, name = argument.partition("=")
        if flag not in _FLAGS:
            yield argument
            continue
        if not equals:
            name = next(remaining, "")
            if not name:
                raise InputError("--flagfile", expected="a value", received="none")
        if name:
            path = _find(name.strip(), folder)
            if path in within:
                raise InputError(
                    within[-1],
                    expected="no flagfile that includes this one",
                    received=argument,
                )
            yield from _expanded(_lines(path), folder, (*within, path))


def _find(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of a flagfile that is given by its name or path."""
    path = pathlib.Path(name).expanduser()
    if path.is_file():
        return path
    named = {path.stem: path for path in sorted(folder.glob("*.flags"))}
    if name in named:
        return named[name]
    raise InputError(
        "--flagfile", expected=f"a file, or one of {', '.join(named)}", received=name
    )


def _lines(path: pathlib.Path) -> list[str]:
    return [
        line.strip()
        for line in files.require_text(path, "a flagfile").splitlines()
        if line.strip() and not line.startswith(_COMMENTS)
    ]
