"""Ranks the cases of a domain by how much they differ from the others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.measurements import PERCENTILES
from u2net_tf.plan.domains import AXES
from u2net_tf.wording import three_digits

# Intensity percentiles to compare; the extremes depend on single voxels.
_PERCENTILES = (2, 50, 98)
# Scales the median absolute deviation to the standard deviation, if normal.
_SCALE = 1.4826
# Lower limit of deviations, relative to a length or to the range of intensities: if
# most cases agree to the last digit, any difference would have an infinite score.
_MIN_DEVIATION = 0.01


@dataclasses.dataclass(frozen=True)
class RankedCase:
    """A case and its most unusual measure.

    Attributes:
      case: measurements of the case.
      score: the largest absolute value of its robust z-scores.
      measure: name and value of that measure; "" if nothing was measured.
    """

    case: CaseFacts
    score: float
    measure: str


def rank_cases(
    cases: Sequence[CaseFacts], modalities: Sequence[str]
) -> list[RankedCase]:
    """Orders cases by how unusual they are, the most unusual first.

    Measures are the logarithms of spacing and extent along each axis, and percentiles
    2, 50 and 98 of each modality's intensities. A robust z-score is the distance from
    the median of all cases, divided by 1.4826 times the median absolute deviation; by
    0.01, or a hundredth of the median range of intensities, where that is more.

    Args:
      cases: cases of one domain.
      modalities: names of the modalities.
    """
    columns: dict[tuple[str, int], dict[str, _Measure]] = {}
    for case in cases:
        for key, measure in _measures(case, modalities):
            columns.setdefault(key, {})[case.case] = measure
    by_name = {case.case: RankedCase(case, 0.0, "") for case in cases}
    for (name, _), column in columns.items():
        values = np.array([measure.value for measure in column.values()])
        scale = float(np.median([measure.scale for measure in column.values()]))
        distances = np.abs(values - np.median(values))
        deviation = max(_SCALE * float(np.median(distances)), _MIN_DEVIATION * scale)
        for (case_name, measure), distance in zip(
            column.items(), distances, strict=True
        ):
            score = float(distance) / deviation if distance else 0.0
            if not by_name[case_name].measure or score > by_name[case_name].score:
                text = f"{name} {measure.text}"
                by_name[case_name] = dataclasses.replace(
                    by_name[case_name], score=score, measure=text
                )
    return sorted(
        by_name.values(), key=lambda ranked: (-ranked.score, ranked.case.case)
    )


@dataclasses.dataclass(frozen=True)
class _Measure:
    """A value, the unit of its deviations, and the text that is shown."""

    value: float
    scale: float
    text: str


def _measures(
    case: CaseFacts, modalities: Sequence[str]
) -> Iterator[tuple[tuple[str, int], _Measure]]:
    # Not strict: both are empty if the image cannot be read.
    for axis, spacing, size in zip(AXES, case.spacing_mm, case.shape, strict=False):
        for name, length in (("spacing", spacing), ("extent", spacing * size)):
            measure = _Measure(math.log(length), 1.0, f"{three_digits(length)} mm")
            yield (f"{name} {axis}", 0), measure
    for index, row in enumerate(case.percentiles):
        if not row:
            # No voxel is finite.
            continue
        name = modalities[index] if index < len(modalities) else f"modality {index}"
        values = dict(zip(PERCENTILES, row, strict=True))
        # Any unit will do for a constant image, which is a fault.
        scale = values[98] - values[2] or 1.0
        for percentile in _PERCENTILES:
            value = values[percentile]
            measure = _Measure(value, scale, f"{value:.4g}")
            yield (f"{name} p{percentile}", index), measure
