"""Flagfiles on a command line, by path or by the name of one that is installed.

absl reads `--flagfile=PATH` by itself, but knows no names. So flagfiles are replaced by
their lines before absl parses the command line.
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Iterator, Sequence

from u2net_tf import files
from u2net_tf.errors import InputError

_FLAGS = ("--flagfile", "-flagfile")
_COMMENTS = ("#", "//")
# Commands of other packages, such as `tools`, have none of their own.
_WITH_FLAGFILES = ("u2net_tf", "data_prep")


def expand(argv: Sequence[str], package: str) -> list[str]:
    """Replaces every flagfile of a command line by its lines.

    Args:
      argv: The command line; the first is the name of the program.
      package: The package whose flagfiles have names: "u2net_tf" or "data_prep"; that
        of any other stands for "u2net_tf".

    Raises:
      InputError: If there is no such flagfile, or one that includes itself.
    """
    return [*argv[:1], *_expanded(argv[1:], _folder(package), ())]


def _folder(package: str) -> pathlib.Path:
    """The flagfiles that are installed with a package."""
    package = package if package in _WITH_FLAGFILES else _WITH_FLAGFILES[0]
    return pathlib.Path(importlib.import_module(package).__path__[0], "flagfiles")


def _expanded(
    arguments: Sequence[str], folder: pathlib.Path, within: tuple[pathlib.Path, ...]
) -> Iterator[str]:
    """Yields the arguments with the lines of flagfiles in place of these.

    Args:
      arguments: Of a command line, or the lines of a flagfile.
      folder: Where names are looked up.
      within: The flagfiles that led to these arguments.
    """
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            # Nothing behind it is a flag.
            yield argument
            yield from left
            return
        flag, equals, name = argument.partition("=")
        if flag not in _FLAGS:
            yield argument
            continue
        if not equals:
            name = next(left, "")
            if not name:
                raise InputError("--flagfile", expected="a value", received="none")
        if name:
            path = _find(name.strip(), folder)
            if path in within:
                raise InputError(
                    within[-1],
                    expected="no flagfile that this one is part of",
                    received=argument,
                )
            yield from _expanded(_lines(path), folder, (*within, path))


def _find(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The file that a flagfile's name or path stands for."""
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
