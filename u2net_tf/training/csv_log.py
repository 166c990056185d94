"""`training.csv`: one row per epoch, also if the run was interrupted."""

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
    """Writes one row per epoch.

    Args:
      path: the file. If its content is invalid, it is renamed and kept.
      columns: names of the columns, including "epoch" and "step".
      first_step: number of steps done; rows of later steps, left by a run that was
        killed before it saved a checkpoint, are removed.

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
        rows, invalid = _parse(text, self._columns)
        problem = problem or invalid
        if problem:
            logging.warning(
                "%s: %s. Renamed it to %s; the new file starts with the rows that "
                "could be read: %d",
                self._path,
                problem,
                files.rename_as_damaged(self._path),
                len(rows),
            )
        return rows


def _parse(text: str, columns: Sequence[str]) -> tuple[list[dict[str, str]], str]:
    """Returns the valid rows and the first problem; "" if there is none."""
    first, *lines = text.split("\n")
    names = _cells(first)
    problems = []
    # Names in the plan may have been edited since.
    unknown = [
        name
        for name in names
        if name not in columns and not name.startswith(("loss/", "dice/"))
    ]
    if text and (unknown or not {"epoch", "step"} <= set(names)):
        received = ",".join(unknown or names)[:80]
        problems.append(
            f"expected the columns {', '.join(columns[:3])}, …. Received: {received!r}"
        )
    rows = []
    # The last row is incomplete if the run was killed while writing it.
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
    # Line by line: an unpaired quotation mark would swallow all following lines.
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _is_row(row: Mapping[str, str]) -> bool:
    """Returns whether the step is an integer and other cells are numbers or empty."""
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
