"""What a run tells while it lasts: `training.csv` and TensorBoard scalars."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import tensorflow as tf
from absl import logging

from u2net_tf import files
from u2net_tf.plan.domains import Plan

# TensorBoard groups tags by what stands before the first slash.
_TAGS = {
    "loss": "loss/all",
    "loss_moving_average": "loss/moving_average",
    "learning_rate": "run/learning_rate",
    "seconds_per_step": "run/seconds_per_step",
    "input_wait_share": "run/input_wait_share",
    "steps_left_out": "run/steps_left_out",
}


def dice_column(domain: str, label: str) -> str:
    """Name of the column and tag of a class's validation Dice."""
    return f"dice/{domain}/{label}"


def columns(plan: Plan) -> list[str]:
    """Columns of `training.csv`, a row per epoch."""
    return [
        "epoch",
        "step",
        *_TAGS,
        *(f"loss/{name}" for name in plan.names),
        *(
            dice_column(domain.name, label.name)
            for domain in plan.domains
            for label in domain.labels[1:]
        ),
    ]


class Monitor:
    """Writes one row and one set of scalars per epoch.

    Args:
      model_dir: the run's folder; `training.csv` and `tensorboard/` are made in it.
      plan: gives the names of domains and classes.
      first_step: steps done before; rows of later steps, left by a run that was killed
        before it saved them, are removed, and so are their scalars. A `training.csv`
        that holds anything but rows is kept beside the new one.
    """

    def __init__(
        self, model_dir: str | os.PathLike, plan: Plan, *, first_step: int = 0
    ):
        self._path = pathlib.Path(model_dir) / "training.csv"
        self._columns = columns(plan)
        rows = self._read_rows()
        kept = [row for row in rows if int(row["step"]) <= first_step]
        files.write_text(self._path, _format(self._columns, kept))
        self.last_step = int(kept[-1]["step"]) if kept else 0
        folder = pathlib.Path(model_dir) / "tensorboard"
        # Those of `first_step` are written anew where their row is missing.
        whole = self.last_step == first_step
        for path in folder.glob("events.out.tfevents.*"):
            _cut_events(path, first_step if whole else first_step - 1)
        self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, row: Mapping[str, float]) -> None:
        """Writes one epoch.

        Args:
          row: "epoch", "step" and any of the other columns. NaN and columns that are
            not given stay empty.
        """
        step = int(row["step"])
        with self._writer.as_default():
            for column in self._columns[2:]:
                value = row.get(column)
                if value is not None and not math.isnan(value):
                    tf.summary.scalar(_TAGS.get(column, column), value, step=step)
        self._writer.flush()
        # Last: from this row a resumed run sees that the epoch was told.
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            stream.write(_format(self._columns, [row], header=False))

    def close(self) -> None:
        """Closes the TensorBoard file."""
        self._writer.close()

    def _read_rows(self) -> list[dict[str, str]]:
        if not self._path.is_file():
            return []
        text, problem = files.read_text(self._path)
        rows, unknown = _parse(text, self._columns)
        problem = problem or unknown
        if problem:
            logging.warning(
                "%s: %s. It is now %s, and a new one goes on with the rows that could "
                "be read: %d",
                self._path,
                problem,
                files.rename_as_damaged(self._path),
                len(rows),
            )
        return rows


def _parse(text: str, columns: Sequence[str]) -> tuple[list[dict[str, str]], str]:
    """Gives the rows, and what is wrong with others; "" if nothing is."""
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
    # By itself: an odd quotation mark would take the lines after it into its cell.
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


def _cut_events(path: pathlib.Path, last_step: int) -> None:
    """Cuts off a TensorBoard file the events after a step, and a last half one.

    A reader does not go back for them: it would show them beside those of the run that
    goes on.
    """
    size = 0
    # A record's length, and two checksums.
    frame = 8 + 4 + 4
    with contextlib.suppress(tf.errors.DataLossError):
        for record in tf.data.TFRecordDataset(str(path), buffer_size=1 << 20):
            serialized = record.numpy()
            if tf.compat.v1.Event.FromString(serialized).step > last_step:
                break
            size += frame + len(serialized)
    if size < path.stat().st_size:
        os.truncate(path, size)


def _format(
    names: Sequence[str], rows: Sequence[Mapping], *, header: bool = True
) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if header:
        writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name, "")) for name in names])
    return stream.getvalue()


def _cell(value) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)
