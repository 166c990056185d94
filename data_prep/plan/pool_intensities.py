"""Pools the foreground intensities of training cases, by which scans are standardized.

Reference: nnU-Net's normalization of CT, where an intensity has the same meaning in all
scans. nnU-Net pools voxels, an equal number per case; here each case has equal weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.config import Normalization
from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.survey_file import DomainFacts
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.preprocessing import IntensityStatistics, Preprocessing
from u2net_tf.wording import first_few

# Settings of the normalization of a scan by its own statistics.
SCAN_SETTINGS = ("clip_percentiles", "intensity_floor", "statistics_over")


def choose_statistics(
    facts: DomainFacts,
    training: Sequence[CaseFacts],
    *,
    normalization: Normalization,
    preprocessing: Preprocessing,
) -> tuple[IntensityStatistics | None, ...] | None:
    """Returns the statistics of each modality that is not standardized scan by scan.

    Args:
      facts: survey of the domain.
      training: its training cases.
      normalization: "scan" for no modality, "dataset" for all, "auto" for those named
        CT, unless one of `SCAN_SETTINGS` does not have its default value or the survey
        is too old to have measured the foreground.
      preprocessing: the other settings.

    Raises:
      InputError: if the survey did not measure the foreground, or it is empty or
        constant in the training cases.
    """
    chosen = _chosen_modalities(facts.modalities, normalization, preprocessing)
    unmeasured = [c.case for c in training if c.foreground_intensities is None]
    if not any(chosen) or (unmeasured and normalization == "auto"):
        return None
    if unmeasured:
        raise InputError(
            facts.name,
            expected="a survey that measured the intensities of the foreground",
            received=f"none for {first_few(unmeasured)}",
            hint="Repeat `python -m data_prep.survey`",
        )
    pooled = _pool(facts, training)
    return tuple(
        statistics if is_chosen else None
        for is_chosen, statistics in zip(chosen, pooled, strict=True)
    )


def notes(domain: Domain, normalization: Normalization) -> Iterable[str]:
    """Yields how modalities are standardized if not with their own statistics.

    Args:
      domain: the planned domain.
      normalization: see `choose_statistics`.
    """
    statistics = domain.preprocessing.intensity_statistics
    if statistics is None:
        chosen = _chosen_modalities(
            domain.modalities, normalization, domain.preprocessing
        )
        if any(chosen):
            yield (
                "each CT is standardized with its own mean, since the survey is of a "
                "version that did not measure the foreground; repeat "
                "`python -m data_prep.survey` to use the statistics of all training "
                "cases, or set `intensity_normalization`=scan"
            )
        return
    for modality, fixed in zip(domain.modalities, statistics, strict=True):
        if fixed is not None:
            yield (
                f"{modality} is clipped to {fixed.low:g} to {fixed.high:g} and "
                f"standardized with mean {fixed.mean:g} and standard deviation "
                f"{fixed.std:g}, which are those of the foreground in training cases; "
                "`intensity_normalization`=scan uses those of each scan"
            )


def changed_settings(preprocessing: Preprocessing) -> list[str]:
    """Returns those of `SCAN_SETTINGS` that do not have their default values."""
    default = Preprocessing()
    return [
        name
        for name in SCAN_SETTINGS
        if getattr(preprocessing, name) != getattr(default, name)
    ]


def _chosen_modalities(
    modalities: Sequence[str],
    normalization: Normalization,
    preprocessing: Preprocessing,
) -> list[bool]:
    """Returns for each modality whether it is to be standardized with fixed values."""
    if normalization == "auto" and changed_settings(preprocessing):
        return [False] * len(modalities)
    return [
        normalization == "dataset"
        or (normalization == "auto" and modality.casefold() == "ct")
        for modality in modalities
    ]


def _pool(
    facts: DomainFacts, training: Sequence[CaseFacts]
) -> list[IntensityStatistics]:
    """Returns statistics per modality: of limits, the median over cases."""
    rows = [c.foreground_intensities for c in training if c.foreground_intensities]
    if not rows:
        raise InputError(
            facts.name,
            expected="training cases with voxels of a class other than the background, "
            "for `intensity_normalization`=dataset",
            received="none",
        )
    pooled = []
    for modality, of_cases in zip(
        facts.modalities, zip(*rows, strict=True), strict=True
    ):
        low, high, means, deviations = np.array(
            [(one.low, one.high, one.mean, one.std) for one in of_cases]
        ).T
        low, high = np.median(low), np.median(high)
        std = np.sqrt(np.square(deviations).mean() + means.var())
        if not (low < high and std > 0):
            raise InputError(
                f"{facts.name}: modality {modality!r}",
                expected="intensities of the foreground that differ",
                received=f"{low:g} to {high:g}",
            )
        numbers = (_short(value) for value in (low, high, means.mean(), std))
        pooled.append(IntensityStatistics(*numbers))
    return pooled


def _short(value: float) -> float:
    return float(f"{value:.6g}")
