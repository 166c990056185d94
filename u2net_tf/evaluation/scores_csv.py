"""`dice.csv`: the scores of every case, a row per class or region."""

from __future__ import annotations

import csv
import io
import math
import pathlib
from collections.abc import Iterator, Sequence

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.evaluation.surfaces import SurfaceScore
from u2net_tf.evaluation.tables import CaseScore

_KEYS = ("domain", "case", "class")
_ALWAYS = ("dice", "false_positive_ml")
_MADE_BY = "`python -m u2net_tf.evaluate` or `u2net_tf.score`"
# Scores that cannot exceed 1; the others are volumes and distances.
_FRACTIONS = ("dice", "surface_dice")


def to_csv(scores: Sequence[CaseScore]) -> str:
    """Returns the content of `dice.csv`; undefined values are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = list(_ALWAYS)
    if any(score.hd95_mm for score in scores):
        names += SurfaceScore._fields
    writer.writerow([*_KEYS, *names])
    for score in scores:
        for label in score.dice:
            values = [getattr(score, name).get(label, math.nan) for name in names]
            numbers = ("" if math.isnan(n) else f"{n:.6f}" for n in values)
            writer.writerow([score.domain, score.case, label, *numbers])
    return stream.getvalue()


def read(path: pathlib.Path) -> list[CaseScore]:
    """Reads what `to_csv` returned.

    Raises:
      InputError: if the file is missing or is not as `to_csv` wrote it. Names the line.
    """
    try:
        text = files.require_text(path, f"scores written by {_MADE_BY}")
    except FileNotFoundError:
        raise InputError(
            path, expected=f"scores written by {_MADE_BY}", received="no such file"
        ) from None
    scores: dict[tuple[str, str], CaseScore] = {}
    for line, (domain, case, label), values in _rows(path, text):
        score = scores.setdefault((domain, case), CaseScore(domain, case, {}, {}))
        if label in score.dice:
            raise InputError(
                f"{path}, line {line}",
                expected="one row per case and class",
                received=f"{domain}, {case}, {label} again",
            )
        score.dice[label] = values.pop("dice")
        volume = values.pop("false_positive_ml", math.nan)
        if not math.isnan(volume):
            score.false_positive_ml[label] = volume
        for name, value in values.items():
            getattr(score, name)[label] = value
    if not scores:
        raise InputError(path, expected="at least one row", received="none")
    return list(scores.values())


def _rows(
    path: pathlib.Path, text: str
) -> Iterator[tuple[int, list[str], dict[str, float]]]:
    """Yields the line, the domain, case and class, and the values of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, [])
        names = columns[len(_KEYS) :]
        # Release 0.1.0 wrote the Dice only.
        allowed = ([*_ALWAYS], [*_ALWAYS, *SurfaceScore._fields], ["dice"])
        if tuple(columns[: len(_KEYS)]) != _KEYS or names not in allowed:
            raise InputError(
                path,
                expected=f"the columns {', '.join((*_KEYS, *allowed[0]))}",
                received=", ".join(columns) or "none",
            )
        # Without blank lines, which other programs may append.
        for row in filter(None, reader):
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(columns):
                raise InputError(
                    where, expected=f"{len(columns)} cells", received=len(row)
                )
            cells = dict(zip(names, row[len(_KEYS) :], strict=True))
            yield (
                reader.line_num,
                row[: len(_KEYS)],
                {name: _number(where, name, cell) for name, cell in cells.items()},
            )
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}", expected="CSV", received=error
        ) from None


def _number(where: str, name: str, cell: str) -> float:
    """Returns the value of a cell; NaN if it is empty."""
    if not cell:
        return math.nan
    largest = 1.0 if name in _FRACTIONS else math.inf
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value <= largest or math.isinf(value):
        limit = " to 1" if name in _FRACTIONS else ""
        raise InputError(
            f"{where}: {name}", expected=f"a number from 0{limit}", received=repr(cell)
        )
    return value
