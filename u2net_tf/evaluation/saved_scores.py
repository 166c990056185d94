"""Scores that `evaluate` or `score` wrote to a folder."""

from __future__ import annotations

import collections
import dataclasses
import math
import pathlib
from collections.abc import Sequence

from u2net_tf.config.evaluation import Measure
from u2net_tf.errors import InputError
from u2net_tf.evaluation import scores_csv, tables
from u2net_tf.wording import quantity


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
      InputError: if a file is missing or invalid, or they are not of the same cases.
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
    return Scores(folder, summary, tuple(cases))


def _labels(rows: Sequence[tables.ClassScore], domain: str) -> tuple[str, ...]:
    return tuple(row.label for row in rows if row.domain == domain)
