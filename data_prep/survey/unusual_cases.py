"""Which cases are unlike the others of their domain, and in what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.survey.examine_case import PERCENTILES, CaseFacts
from u2net_tf.plan.domains import AXES

# Of these intensities; the extremes are a matter of single voxels.
_PERCENTILES = (2, 50, 98)
# Makes the median absolute deviation that of a normal distribution.
_SCALE = 1.4826
# A deviation counts as no less than this, of a length or of the range of intensities:
# where most cases agree to the last digit, any difference would be beyond measure.
_MIN_DEVIATION = 0.01


@dataclasses.dataclass(frozen=True)
class RankedCase:
    """A case, and in what it is most unlike the others.

    Attributes:
      case: the case.
      score: the largest of its robust z-scores, without the sign.
      measure: which measure that is of, and its value; "" if nothing was measured.
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
      cases: of one domain.
      modalities: their names.
    """
    columns: dict[tuple[str, int], dict[str, _Measure]] = {}
    for case in cases:
        for key, measure in _measures(case, modalities):
            columns.setdefault(key, {})[case.case] = measure
    found = {case.case: RankedCase(case, 0.0, "") for case in cases}
    for (name, _), column in columns.items():
        values = np.array([measure.value for measure in column.values()])
        scale = float(np.median([measure.scale for measure in column.values()]))
        distances = np.abs(values - np.median(values))
        deviation = max(_SCALE * float(np.median(distances)), _MIN_DEVIATION * scale)
        for (named, measure), distance in zip(column.items(), distances, strict=True):
            score = float(distance) / deviation if distance else 0.0
            if not found[named].measure or score > found[named].score:
                text = f"{name} {measure.text}"
                found[named] = dataclasses.replace(
                    found[named], score=score, measure=text
                )
    return sorted(found.values(), key=lambda ranked: (-ranked.score, ranked.case.case))


@dataclasses.dataclass(frozen=True)
class _Measure:
    """A number, what it is compared in units of, and as it is shown."""

    value: float
    scale: float
    text: str


def _measures(
    case: CaseFacts, modalities: Sequence[str]
) -> Iterator[tuple[tuple[str, int], _Measure]]:
    # Not strict: both are empty where the image cannot be read.
    for axis, spacing, size in zip(AXES, case.spacing_mm, case.shape, strict=False):
        for name, length in (("spacing", spacing), ("extent", spacing * size)):
            measure = _Measure(math.log(length), 1.0, f"{length:.3g} mm")
            yield (f"{name} {axis}", 0), measure
    for index, row in enumerate(case.percentiles):
        if not row:
            # No voxel of it is finite.
            continue
        name = modalities[index] if index < len(modalities) else f"modality {index}"
        values = dict(zip(PERCENTILES, row, strict=True))
        # Of a constant image, which is a fault, any unit will do.
        scale = values[98] - values[2] or 1.0
        for percentile in _PERCENTILES:
            value = values[percentile]
            measure = _Measure(value, scale, f"{value:.4g}")
            yield (f"{name} p{percentile}", index), measure
