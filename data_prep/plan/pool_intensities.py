"""Pools the foreground intensities of cases, by which all scans are standardized.

Reference: nnU-Net's normalization of CT, where an intensity has the same meaning in all
scans. nnU-Net pools voxels; here, statistics are medians over the cases, so that a few
unusual cases do not change them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep.config import Normalization
from data_prep.plan import label_classes
from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.survey_file import DomainFacts
from u2net_tf.errors import InputError
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import (
    IntensityStatistics,
    Preprocessing,
    check_statistics,
)
from u2net_tf.wording import first_few

# Settings of the normalization of a scan by its own statistics.
SCAN_SETTINGS = ("clip_percentiles", "intensity_floor", "statistics_over")
# Matches "CT", "CTA", "CBCT" and "low-dose CT", but not "SPECT" or "OCT".
_LIKE_CT = re.compile(r"(?<![^\W_])(CB)?CT|computed tomogra", re.IGNORECASE)


class PooledStatistics(NamedTuple):
    """Statistics of a domain.

    Attributes:
      statistics: per modality, None for those standardized scan by scan; None if these
        are all modalities.
      notes: notes for the user.
    """

    statistics: tuple[IntensityStatistics | None, ...] | None
    notes: tuple[str, ...] = ()


def choose_statistics(
    facts: DomainFacts,
    cases: Sequence[CaseFacts],
    labels: Sequence[Label],
    *,
    normalization: Normalization,
    preprocessing: Preprocessing,
) -> PooledStatistics:
    """Returns the statistics of the modalities that are not standardized scan by scan.

    Args:
      facts: survey of the domain.
      cases: its cases, without test cases.
      labels: its classes, the background first.
      normalization: "scan" for no modality, "dataset" for all, "auto" for those of
        `fixed_modalities` if the survey has their statistics.
      preprocessing: the other settings.

    Raises:
      InputError: if normalization is "dataset" and there are no usable statistics.
    """
    chosen = fixed_modalities(facts.modalities, normalization, preprocessing)
    notes = _notes(facts.modalities, normalization, preprocessing)
    if not any(chosen):
        return PooledStatistics(None, notes)
    try:
        pooled = _pool(facts, cases, labels)
    except InputError as error:
        if normalization == "dataset":
            raise
        reason = f"expected {error.expected}. Received: {error.received}"
        note = f"each CT is standardized with its own statistics: {reason}"
        note += f". {error.hint}" if error.hint else ""
        return PooledStatistics(None, (*notes, note))
    statistics = tuple(
        one if is_chosen else None
        for is_chosen, one in zip(chosen, pooled, strict=True)
    )
    notes += tuple(
        f"{modality} is clipped to {fixed.low:.7g} to {fixed.high:.7g} and "
        f"standardized with mean {fixed.mean:.7g} and standard deviation "
        f"{fixed.std:.7g}, medians over the foreground of all cases but test cases; "
        "`intensity_normalization`=scan uses those of each scan"
        for modality, fixed in zip(facts.modalities, statistics, strict=True)
        if fixed is not None
    )
    return PooledStatistics(statistics, notes)


def fixed_modalities(
    modalities: Sequence[str],
    normalization: Normalization,
    preprocessing: Preprocessing,
) -> list[bool]:
    """Returns for each modality whether it is to be standardized with fixed values.

    Args:
      modalities: names of the modalities.
      normalization: "scan" for none, "dataset" for all, "auto" for those named CT,
        unless one of `SCAN_SETTINGS` does not have its default value.
      preprocessing: the other settings.
    """
    if normalization == "auto" and changed_settings(preprocessing):
        return [False] * len(modalities)
    return [
        normalization == "dataset" or (normalization == "auto" and _is_ct(modality))
        for modality in modalities
    ]


def _notes(
    modalities: Sequence[str],
    normalization: Normalization,
    preprocessing: Preprocessing,
) -> tuple[str, ...]:
    """Returns notes on modalities that "auto" does not treat as CT but that may be CT.

    There are none unless `normalization` is "auto".
    """
    if normalization != "auto":
        return ()
    if changed := changed_settings(preprocessing):
        return tuple(
            f"{modality} is standardized with statistics of each scan because of "
            f"{first_few([f'`{name}`' for name in changed])}"
            for modality in modalities
            if _is_ct(modality)
        )
    return tuple(
        f"{modality!r} may be CT, but only modalities named CT are standardized with "
        "statistics of all cases. If it is in Hounsfield units, name it CT in "
        "dataset.json and repeat the survey; `intensity_normalization`=dataset treats "
        "all modalities like CT"
        for modality in modalities
        if _LIKE_CT.search(modality) and not _is_ct(modality)
    )


def _is_ct(modality: str) -> bool:
    """Returns whether a modality is named CT, as in nnU-Net."""
    return modality.strip().casefold() == "ct"


def changed_settings(preprocessing: Preprocessing) -> list[str]:
    """Returns those of `SCAN_SETTINGS` that do not have their default values."""
    default = Preprocessing()
    return [
        name
        for name in SCAN_SETTINGS
        if getattr(preprocessing, name) != getattr(default, name)
    ]


def _pool(
    facts: DomainFacts, cases: Sequence[CaseFacts], labels: Sequence[Label]
) -> list[IntensityStatistics]:
    """Returns the medians of the statistics, per modality."""
    where = "`intensity_normalization`"
    unmeasured = [c.case for c in cases if c.foreground_intensities is None]
    if unmeasured:
        raise InputError(
            where,
            expected="a survey that measured the intensities of the foreground",
            received=f"none for {first_few(unmeasured)}, surveyed by an older version",
            hint="Repeat `python -m data_prep.survey`, or use scan",
        )
    background = label_classes.values_in_background(labels)
    if background:
        raise InputError(
            where,
            expected="scan, since the survey measured the foreground with values that "
            "are merged with the background",
            received=f"{first_few(background)} in the background",
        )
    rows = [c.foreground_intensities for c in cases if c.foreground_intensities]
    if not rows:
        raise InputError(
            where,
            expected="cases with foreground that are not test cases, or scan",
            received="none",
        )
    columns = zip(*rows, strict=True)
    pooled = [_median(of_cases) for of_cases in columns]
    for modality, statistics in zip(facts.modalities, pooled, strict=True):
        try:
            check_statistics(statistics)
        except InputError as error:
            raise InputError(
                where,
                expected=f"a foreground of {modality} with {error.expected}, or scan",
                received=error.received,
            ) from None
    return pooled


def _median(cases: Sequence[IntensityStatistics]) -> IntensityStatistics:
    rows = np.array([(one.low, one.high, one.mean, one.std) for one in cases])
    numbers = np.median(rows, axis=0)
    std = float(numbers[-1])
    # Four digits of what is left after the mean is subtracted.
    decimals = 4 - math.floor(math.log10(std)) if std > 0 else 0
    return IntensityStatistics(*(round(float(number), decimals) for number in numbers))
