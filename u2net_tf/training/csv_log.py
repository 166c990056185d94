"""`training.csv`: a row per epoch, also of a run that was interrupted."""

from __future__ import annotations

import csv
import io
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

from absl import logging

from u2net_tf import files


class CsvLog:
    """Writes a row per epoch.

    Args:
      path: the file. If it holds anything but rows, it is kept beside the new one.
      columns: names of the columns, "epoch" and "step" among them.
      first_step: number of steps done; rows of later steps, left by a run that was
        killed before it saved them, are removed.

    Attributes:
      last_step: step of the last row; 0 if there is none.
    """

    def __init__(
        self, path: pathlib.Path, columns: Sequence[str], *, first_step: int = 0
    ):
        self._path = path
        self._columns = columns
        rows = self._read_rows()
        kept = [row for row in rows if int(row["step"]) <= first_step]
        files.write_text(path, _format(columns, kept))
        self.last_step = int(kept[-1]["step"]) if kept else 0

    def write(self, logs: Mapping[str, float]) -> None:
        """Writes a row.

        Args:
          logs: column -> value; cells of NaN and of missing columns stay empty.
        """
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            stream.write(_format(self._columns, [logs], header=False))
        files.sync_file(self._path)

    def _read_rows(self) -> list[dict[str, str]]:
        if not self._path.is_file():
            return []
        text, problem = files.read_text(self._path)
        rows, unknown = _parse(text, self._columns)
        problem = problem or unknown
        if problem:
            logging.warning(
                "%s: %s. It is now %s, and a new one continues with the rows that "
                "could be read: %d",
                self._path,
                problem,
                files.rename_as_damaged(self._path),
                len(rows),
            )
        return rows


def _parse(text: str, columns: Sequence[str]) -> tuple[list[dict[str, str]], str]:
    """Returns the valid rows, and what is wrong with others; "" if nothing is."""
    first, *lines = text.split("\n")
    names = _cells(first)
    problems = []
    # The plan's names may have been edited since.
    strange = [
        name
        for name in names
        if name not in columns and not name.startswith(("loss/", "dice/"))
    ]
    if text and (strange or not {"epoch", "step"} <= set(names)):
        received = ",".join(strange or names)[:80]
        problems.append(
            f"expected the columns {', '.join(columns[:3])}, …. Received: {received!r}"
        )
    rows = []
    # The last row has no end if the run was killed while it wrote it.
    for number, line in enumerate(lines[:-1], start=2):
        cells = _cells(line)
        row = dict(zip(names, cells, strict=False))
        if len(cells) <= len(names) and _is_row(row):
            rows.append(row)
        elif line:
            problems.append(
                f"expected numbers in line {number}. Received: {line[:80]!r}"
            )
    return rows, problems[0] if problems else ""


def _cells(line: str) -> list[str]:
    # One line at a time: an odd quotation mark would swallow the lines after it.
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _is_row(row: Mapping[str, str]) -> bool:
    """Whether the step is a whole number and the rest are numbers or empty."""
    try:
        for cell in filter(None, row.values()):
            float(cell)
    except ValueError:
        return False
    return re.fullmatch("[0-9]{1,18}", row.get("step", "")) is not None


def _format(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, float | str]],
    *,
    header: bool = True,
) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if header:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(name, "")) for name in columns])
    return stream.getvalue()


def _cell(value: float | str) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)
