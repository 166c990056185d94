"""Scores that `evaluate` or `score` wrote to a folder."""

from __future__ import annotations

import collections
import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from u2net_tf.config.evaluation import Measure
from u2net_tf.errors import InputError
from u2net_tf.evaluation import scores_csv, tables
from u2net_tf.wording import quantity

# Numbers in dice.csv have six decimals, so that means and deviations differ by less.
_ROUNDING = 2e-6


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores in a folder that `evaluate` or `score` wrote.

    Attributes:
      folder: the folder.
      summary: content of `summary.json`.
      cases: the scores of every case.
    """

    folder: pathlib.Path
    summary: tables.Summary
    cases: tuple[tables.CaseScore, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of which a case was scored, in the order of the summary."""
        scored = {case.domain for case in self.cases}
        names = dict.fromkeys(row.domain for row in self.summary.classes)
        return tuple(name for name in names if name in scored)

    def labels(self, domain: str) -> tuple[str, ...]:
        """Returns the names of the classes of a domain."""
        return _labels(self.summary.classes, domain)

    def regions(self, domain: str) -> dict[str, tuple[str, ...] | None]:
        """Returns region -> its classes; None if the summary does not name them."""
        classes = self.summary.region_classes or {}
        return {
            name: classes.get(f"{domain}/{name}")
            for name in _labels(self.summary.regions, domain)
        }

    def of_domain(self, domain: str, measure: Measure) -> dict[str, dict[str, float]]:
        """Returns case -> class or region -> score, if it is defined."""
        return {
            case.case: {
                label: value
                for label, value in getattr(case, measure).items()
                if not math.isnan(value)
            }
            for case in self.cases
            if case.domain == domain
        }


def read_scores(folder: pathlib.Path) -> Scores:
    """Reads `dice.csv` and `summary.json` in a folder.

    Raises:
      InputError: if a file is missing or invalid, or they are not of the same scores.
    """
    summary = tables.SUMMARY.load(folder / "summary.json")
    path = folder / "dice.csv"
    cases = scores_csv.read(path)
    found = collections.Counter(
        (case.domain, label) for case in cases for label in case.dice
    )
    listed = {
        (row.domain, row.label): row.num_cases + row.num_absent
        for row in (*summary.classes, *summary.regions)
    }
    for key in (*found, *listed):
        if found[key] != listed.get(key, 0):
            raise InputError(
                path,
                expected=f"{quantity(listed.get(key, 0), 'case')} of {'/'.join(key)}, "
                "as in summary.json",
                received=found[key],
            )
    for row in (*summary.classes, *summary.regions):
        _require_same(path, row, tables.summarize_class(cases, row.domain, row.label))
    return Scores(folder, summary, tuple(cases))


def _require_same(
    path: pathlib.Path, listed: tables.ClassScore, found: tables.ClassScore
) -> None:
    """Checks that the cases have the scores in the summary, except for rounding."""
    for field in dataclasses.fields(tables.ClassScore)[2:]:
        values = getattr(listed, field.name), getattr(found, field.name)
        if not np.isclose(*values, rtol=0, atol=_ROUNDING, equal_nan=True):
            raise InputError(
                path,
                expected=f"{field.name} {values[0]:.9g} of {listed.domain}/"
                f"{listed.label}, as in summary.json",
                received=f"{values[1]:.9g}",
            )


def _labels(rows: Sequence[tables.ClassScore], domain: str) -> tuple[str, ...]:
    return tuple(row.label for row in rows if row.domain == domain)
