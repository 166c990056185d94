"""Reads files that list scans: a list of paths, or a table of cases and modalities.

A list has one path per line. A table is a `.csv` file with a header of the columns
`case` and one per modality, in any order. Paths are relative to the folder of the file.
"""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterator, Sequence

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.volumes.file_roles import require_one_role_each
from u2net_tf.wording import first_few, quantity

_CASE = "case"


def is_table(path: pathlib.Path) -> bool:
    """Returns whether a file is a table, by its name."""
    return path.suffix.lower() == ".csv"


def read_paths(path: pathlib.Path) -> list[pathlib.Path]:
    """Reads a list of paths; empty lines are skipped.

    Raises:
      InputError: if the file does not exist, is not text or is empty.
    """
    lines = [line.strip() for line in _read(path).splitlines()]
    paths = [path.parent / line for line in lines if line]
    if not paths:
        raise InputError(_where(path), expected="one path per line", received="none")
    return paths


def read_table(
    path: pathlib.Path, modalities: Sequence[str]
) -> list[tuple[str, tuple[pathlib.Path, ...]]]:
    """Reads a table of cases.

    Args:
      path: the file; its cells are separated by commas or, if the first line has no
        comma, by semicolons.
      modalities: modalities of the domain, in the order of the channels.

    Returns:
      Name of each case, and its paths in the order of the modalities.

    Raises:
      InputError: if a line is invalid, or two lines contain the same file.
    """
    lines = _read(path).splitlines()
    delimiter = ";" if lines and "," not in lines[0] else ","
    # Stripped like the cells of the table.
    columns = [modality.strip() for modality in modalities]
    expected = [_CASE, *columns]
    if len(set(expected)) < len(expected):
        twice = sorted({name for name in expected if expected.count(name) > 1})
        raise InputError(
            _where(path),
            expected=f"modalities with distinct names, none of them {_CASE!r}",
            received=f"several columns {first_few(twice)}",
            hint="Use `input` instead",
        )
    rows = _rows(path, lines, delimiter)
    _, header = next(rows, (1, []))
    if sorted(header) != sorted(expected):
        raise InputError(
            f"{_where(path)}: line 1",
            expected=f"the columns {', '.join(expected)}",
            received=_shown(first_few(header)) or "an empty line",
        )
    found = []
    roles: list[tuple[pathlib.Path, str]] = []
    for number, row in rows:
        if not any(row):
            continue
        cells = dict(zip(header, row, strict=False))
        if len(row) != len(header) or not all(row):
            raise InputError(
                f"{_where(path)}: line {number}",
                expected=f"{quantity(len(header), 'cell')}, none of them empty",
                received=_shown(delimiter.join(row)),
            )
        _check_name(path, number, cells[_CASE])
        paths = tuple(path.parent / cells[column] for column in columns)
        found.append((cells[_CASE], paths))
        roles += [
            (entry, f"{column} of {cells[_CASE]!r} (line {number})")
            for entry, column in zip(paths, columns, strict=True)
        ]
    require_one_role_each(_where(path), roles)
    return found


def _rows(
    path: pathlib.Path, lines: Sequence[str], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise InputError(
            f"{_where(path)}: line {reader.line_num}",
            expected="cells of a table",
            received=error,
        ) from None


def _check_name(path: pathlib.Path, number: int, case: str) -> None:
    if case in (".", "..") or set("/\\") & set(case) or not case.isprintable():
        raise InputError(
            f"{_where(path)}: line {number}",
            expected="a case that is a file name, not a path",
            received=_shown(repr(case)),
        )


def _shown(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _read(path: pathlib.Path) -> str:
    if not path.is_file():
        raise InputError(
            _where(path), expected="a file", received=files.what_is_at(path)
        )
    text, problem = files.read_text(path)
    if problem:
        raise InputError(
            _where(path),
            expected="UTF-8 text",
            received=problem.partition("Received: ")[2],
        )
    return text


def _where(path: pathlib.Path) -> str:
    return f"`input_list`: {path}"
