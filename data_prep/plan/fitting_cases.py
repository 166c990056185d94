"""Chooses the cases that a domain is planned with."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from data_prep.config import PlanConfig, SurveyConfig
from data_prep.plan import pool_intensities, resampled_sizes
from data_prep.plan.choices import Choices
from data_prep.plan.resampled_sizes import ResampledSizes
from data_prep.survey.examine_case import (
    CONTRAST,
    CROPPED_LABEL,
    DEFAULTS,
    EMPTY_LABEL,
    IMAGE,
    SAME_NAME,
    UNKNOWN_LABEL,
    CaseFacts,
    Fault,
)
from data_prep.survey.survey_file import DomainFacts
from u2net_tf.errors import InputError

# Maximum number of cases that an error lists; the survey lists all of them.
_MAX_REASONS = 20
# Settings that a fault may name but that planning does not have.
_SETTING_OF_SURVEY = re.compile(
    f"`({'|'.join(SurveyConfig.settings().keys() - PlanConfig.settings().keys())})`"
)


def fitting_cases(
    facts: DomainFacts, choices: Choices
) -> tuple[list[CaseFacts], list[CaseFacts], ResampledSizes]:
    """Returns the cases to plan with, the excluded cases, and sizes of the first.

    Args:
      facts: survey of the domain.
      choices: settings of the plan.

    Raises:
      InputError: if no case can be used, or one cannot and they are not excluded.
    """
    cases, excluded = _usable_cases(facts, choices)
    sizes = resampled_sizes.measure_sizes(
        cases, choices.preprocessing, max_memory_gb=choices.max_memory_gb
    )
    large = [
        dataclasses.replace(case, faults=(_size_fault(case, sizes), *case.faults))
        for case in cases
        if case.case in sizes.too_large
    ]
    if large and not choices.exclude_faulty:
        raise InputError(
            facts.name,
            expected="cases that fit when resampled",
            received=f"{len(large)} of {len(facts.cases)} that do not",
            hint="Check their voxel sizes, use `exclude_faulty` to leave them out, or "
            f"raise `max_memory_gb`:{_rows(large)}",
        )
    fitting = [case for case in cases if case.case not in sizes.too_large]
    return fitting, [*excluded, *large], sizes


def _size_fault(case: CaseFacts, sizes: ResampledSizes) -> Fault:
    return Fault(IMAGE, case.image_path, str(sizes.too_large[case.case]))


def _rows(bad: Sequence[CaseFacts]) -> str:
    rows = "".join(f"\n  {reason(case)}" for case in bad[:_MAX_REASONS])
    if len(bad) > _MAX_REASONS:
        rows += f"\n  and {len(bad) - _MAX_REASONS:,} more"
    return rows


def reason(case: CaseFacts) -> str:
    """Returns the faults of a case; they refer to settings as flags of the survey."""
    text = "; ".join(map(str, case.faults))
    text = _SETTING_OF_SURVEY.sub(r"`python -m data_prep.survey --\1`", text)
    return f"{case.case}: {text}"


def all_usable(cases: Sequence[CaseFacts], choices: Choices) -> bool:
    """Returns whether cases are usable if all scans have their own statistics.

    Args:
      cases: the cases.
      choices: settings of the plan.
    """
    clip_percentiles = choices.preprocessing.clip_percentiles
    return all(_is_usable(case, choices, clip_percentiles) for case in cases)


def _usable_cases(
    facts: DomainFacts, choices: Choices
) -> tuple[list[CaseFacts], list[CaseFacts]]:
    fixed = pool_intensities.fixed_modalities(
        facts.modalities, choices.normalization, choices.preprocessing
    )
    clip_percentiles = None if all(fixed) else choices.preprocessing.clip_percentiles
    good: list[CaseFacts] = []
    bad: list[CaseFacts] = []
    for case in facts.cases:
        usable = _is_usable(case, choices, clip_percentiles)
        (good if usable else bad).append(case)
    if bad and not choices.exclude_faulty:
        raise InputError(
            facts.name,
            expected="usable cases",
            received=f"{len(bad)} of {len(facts.cases)} with faults",
            hint="Use `exclude_faulty` to leave them out, or `unknown_labels`="
            f"background to treat unknown labels as background:{_rows(bad)}",
        )
    if not good:
        raise InputError(
            facts.name, expected="at least one usable case", received="none"
        )
    return good, bad


def _is_usable(
    case: CaseFacts, choices: Choices, clip_percentiles: tuple[float, float] | None
) -> bool:
    return is_usable(
        case,
        unknown_labels=choices.preprocessing.unknown_labels,
        clip_percentiles=clip_percentiles,
        margin_voxels=choices.preprocessing.margin_voxels,
    )


def is_usable(
    facts: CaseFacts,
    *,
    unknown_labels: str,
    clip_percentiles: tuple[float, float] | None = DEFAULTS.clip_percentiles,
    margin_voxels: int = DEFAULTS.margin_voxels,
) -> bool:
    """Returns whether a case can be used for training despite its faults.

    Args:
      facts: the case.
      unknown_labels: "background" if label values without a class are treated as
        background, "fail" if not.
      clip_percentiles: percentiles to which intensities are clipped; None for fixed
        limits. The survey checks the contrast with the default ones; with others, the
        conversion decides.
      margin_voxels: margin of the crop. The survey checks whether the foreground is
        cropped with the default one; with a larger one, the conversion decides.
    """
    tolerated = {EMPTY_LABEL, SAME_NAME}
    if unknown_labels == "background":
        tolerated.add(UNKNOWN_LABEL)
    if clip_percentiles != DEFAULTS.clip_percentiles:
        tolerated.add(CONTRAST)
    if margin_voxels > DEFAULTS.margin_voxels:
        tolerated.add(CROPPED_LABEL)
    return all(fault.kind in tolerated for fault in facts.faults)
