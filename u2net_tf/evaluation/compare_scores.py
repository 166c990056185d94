"""Compares the scores of two models, or of two settings, case by case."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from absl import logging

from u2net_tf.case_groups import group_cases
from u2net_tf.config.evaluation import CompareConfig, Measure
from u2net_tf.errors import InputError
from u2net_tf.evaluation import paired_statistics
from u2net_tf.evaluation.paired_statistics import Pair, PairedScores
from u2net_tf.evaluation.saved_scores import Scores, read_scores
from u2net_tf.wording import first_few, quantity

# Label of the scores that are means over the classes of a case.
MEAN_OF_CLASSES = "mean of the classes"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Result of `compare_scores`.

    Attributes:
      measure: the score that was compared.
      baseline: the scores of the baseline.
      candidate: the scores of the candidate.
      classes: the classes of every domain; those of a domain with several classes are
        followed by `MEAN_OF_CLASSES`, the means over the classes of each case.
      regions: the regions of every domain.
      notes: what was not compared, and why.
    """

    measure: Measure
    baseline: Scores
    candidate: Scores
    classes: tuple[PairedScores, ...]
    regions: tuple[PairedScores, ...]
    notes: tuple[str, ...]


def compare_scores(config: CompareConfig) -> Comparison:
    """Compares the scores of a candidate with those of a baseline, case by case.

    A class of a case is compared if it has a score in both. A warning is logged for
    scores of cases that a model was trained on.

    Args:
      config: the settings.

    Raises:
      InputError: if a folder has no valid scores, they cannot be compared, or have no
        case in common.
      StoppedError: if SciPy is not installed.
    """
    paired_statistics.require_scipy()
    baseline, candidate = (
        read_scores(pathlib.Path(each)) for each in (config.baseline, config.candidate)
    )
    _check_surfaces(config.measure, baseline, candidate)
    for scores in (baseline, candidate):
        _warn_of_training_cases(scores)
    notes: list[str] = []
    classes: list[PairedScores] = []
    regions: list[PairedScores] = []
    for domain in _common_domains(config.domains, baseline, candidate, notes):
        of_domain = _DomainScores(domain, config, baseline, candidate, notes)
        classes += of_domain.compare_classes()
        regions += of_domain.compare_regions()
    if not classes:
        raise InputError(
            "`candidate`",
            expected=f"{config.measure} of cases and classes that have one in "
            f"{baseline.folder}",
            received=f"none in {candidate.folder}",
            hint="; ".join(notes),
        )
    return Comparison(
        config.measure,
        baseline,
        candidate,
        tuple(classes),
        tuple(regions),
        tuple(notes),
    )


class _DomainScores:
    """The scores of a domain in both folders.

    Args:
      domain: name of the domain.
      config: the settings.
      baseline: the scores of the baseline.
      candidate: the scores of the candidate.
      notes: list to which is added what is not compared, and why.
    """

    def __init__(
        self,
        domain: str,
        config: CompareConfig,
        baseline: Scores,
        candidate: Scores,
        notes: list[str],
    ):
        self._domain = domain
        self._both = (baseline, candidate)
        self._scores = tuple(s.of_domain(domain, config.measure) for s in self._both)
        self._notes = notes
        self._cases = self._in_both("case", self._scores)
        self._groups, unmatched = group_cases(
            self._cases, config.group_by, setting="group_by", domain=domain
        )
        notes += [f"{domain}: {note}" for note in unmatched]

    def compare_classes(self) -> list[PairedScores]:
        """Compares the classes, and their mean if there are several."""
        labels = self._in_both(
            "class", [s.labels(self._domain) for s in self._both], "classes"
        )
        found = self._compare(labels)
        if len(found) < 2:
            return found
        means: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for case in self._cases:
            of_case = [scores[case] for scores in self._scores]
            defined = [n for n in labels if all(n in each for each in of_case)]
            for mean, each in zip(means, of_case, strict=True):
                if defined:
                    mean[case] = float(np.mean([each[name] for name in defined]))
        pairs = self._pairs(*means)
        return [
            *found,
            paired_statistics.paired_scores(self._domain, MEAN_OF_CLASSES, pairs),
        ]

    def compare_regions(self) -> list[PairedScores]:
        """Compares the regions that have the same classes."""
        of_both = [scores.regions(self._domain) for scores in self._both]
        same = []
        for name in self._in_both("region", of_both):
            first, second = (regions[name] for regions in of_both)
            if first is None or second is None or set(first) == set(second):
                same.append(name)
                continue
            self._notes.append(
                f"{self._domain}: the region {name} consists of {'+'.join(first)} in "
                f"{self._both[0].folder}, but of {'+'.join(second)} in "
                f"{self._both[1].folder}, and is not compared"
            )
        return self._compare(same)

    def _compare(self, labels: Sequence[str]) -> list[PairedScores]:
        found = []
        for label in labels:
            first, second = (
                {case: row[label] for case, row in scores.items() if label in row}
                for scores in self._scores
            )
            self._in_both(
                f"case with a score of {label}",
                [[c for c in self._cases if c in each] for each in (first, second)],
                plural=f"cases with a score of {label}",
            )
            pairs = self._pairs(first, second)
            if pairs:
                found.append(
                    paired_statistics.paired_scores(self._domain, label, pairs)
                )
            else:
                note = f"no case has a score of {label} in both, so it is not compared"
                self._notes.append(f"{self._domain}: {note}")
        return found

    def _pairs(
        self, baseline: Mapping[str, float], candidate: Mapping[str, float]
    ) -> list[Pair]:
        """Returns the pairs of all groups that have cases with both scores."""
        pairs = []
        for group, cases in self._groups.items():
            both = [case for case in cases if case in baseline and case in candidate]
            if both:
                means = (
                    float(np.mean([scores[case] for case in both]))
                    for scores in (baseline, candidate)
                )
                pairs.append(Pair(group, *means))
        return pairs

    def _in_both(
        self, what: str, names: Sequence[Collection[str]], plural: str = ""
    ) -> list[str]:
        """Returns the names in both, in the order of the first; notes the others."""
        common, notes = _in_both(what, names, self._both, plural)
        self._notes += [f"{self._domain}: {note}" for note in notes]
        return common


def _in_both(
    what: str,
    names: Sequence[Collection[str]],
    both: Sequence[Scores],
    plural: str = "",
) -> tuple[list[str], list[str]]:
    """Returns the names that both have, and notes on those that only one has."""
    first, second = names
    notes = []
    for scores, own, other in ((both[0], first, second), (both[1], second, first)):
        if only := [name for name in own if name not in other]:
            count = quantity(len(only), what, plural)
            notes.append(f"{count} only in {scores.folder}: {first_few(only)}")
    return [name for name in first if name in second], notes


def _common_domains(
    chosen: Sequence[str], baseline: Scores, candidate: Scores, notes: list[str]
) -> list[str]:
    """Returns the domains to compare; adds to the notes those that only one has."""
    for scores in (baseline, candidate):
        if missing := [name for name in chosen if name not in scores.domains]:
            raise InputError(
                "`domains`",
                expected=f"domains in {scores.folder}: {first_few(scores.domains)}",
                received=first_few(missing),
            )
    names, only = _in_both(
        "domain", [baseline.domains, candidate.domains], (baseline, candidate)
    )
    if not chosen:
        notes += only
    return [name for name in names if not chosen or name in chosen]


def _check_surfaces(measure: Measure, baseline: Scores, candidate: Scores) -> None:
    """Checks that surfaces were compared, and with the same tolerance."""
    if measure not in ("hd95_mm", "surface_dice"):
        return
    for scores in (baseline, candidate):
        if scores.summary.surface_tolerance_mm is None:
            raise InputError(
                "`measure`",
                expected=f"{measure} of scores with surfaces",
                received=f"{scores.folder}, scored without `surface_tolerance_mm`",
            )
    tolerances = [each.summary.surface_tolerance_mm for each in (baseline, candidate)]
    if measure == "surface_dice" and tolerances[0] != tolerances[1]:
        raise InputError(
            "`measure`",
            expected="surface_dice with the same tolerance in both",
            received=f"{tolerances[0]:g} mm in {baseline.folder}, {tolerances[1]:g} mm "
            f"in {candidate.folder}",
        )


def _warn_of_training_cases(scores: Scores) -> None:
    if cases := scores.summary.training_cases:
        logging.warning(
            "%s: scores of %s that the model was trained on: %s",
            scores.folder,
            quantity(len(cases), "case"),
            first_few(cases),
        )
