"""Target spacing of a domain, and the sizes of its cases at that spacing."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import TypeVar

from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.measurements import box_with_margin
from u2net_tf.errors import InputError
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.shards.record_size import require_record_size
from u2net_tf.volumes.crop_and_resample import (
    ResampledCrop,
    require_resampling_memory,
    resampled_shape,
)

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class ResampledSizes:
    """Sizes of cases at the spacing of their domain.

    Attributes:
      spacing_mm: the target spacing, the median over the cases not in `too_large`.
      median_shape: the median of their shapes at that spacing, voxels.
      too_large: name -> error, for cases that a conversion would refuse because of
        their memory or size.
    """

    spacing_mm: tuple[float, float, float]
    median_shape: tuple[float, float, float]
    too_large: dict[str, InputError]


def measure_sizes(
    cases: Sequence[CaseFacts],
    preprocessing: Preprocessing,
    *,
    max_memory_gb: float | None,
) -> ResampledSizes:
    """Returns the sizes of cases after preprocessing, and the cases too large for it.

    Args:
      cases: the usable cases of a domain, at least one.
      preprocessing: settings of their preprocessing.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: if all cases are too large.
    """
    too_large: dict[str, InputError] = {}
    fitting = list(cases)
    while True:
        # Excluded cases do not affect the target spacing.
        spacing_mm = median(case.spacing_mm for case in fitting)
        shapes, errors = [], {}
        for case in fitting:
            try:
                shapes.append(_shape(case, spacing_mm, preprocessing, max_memory_gb))
            except InputError as error:
                errors[case.case] = error
        too_large |= errors
        if not shapes:
            raise next(iter(errors.values()))
        if not errors:
            return ResampledSizes(spacing_mm, median(shapes), too_large)
        fitting = [case for case in fitting if case.case not in errors]


def _shape(
    case: CaseFacts,
    spacing_mm: tuple[float, float, float],
    preprocessing: Preprocessing,
    max_memory_gb: float | None,
) -> tuple[int, int, int]:
    """Returns the shape after cropping and resampling by `volumes.crop_and_resample`.

    Raises:
      InputError: if a conversion would refuse the case.
    """
    box = box_with_margin(
        case.box_start, case.box_shape, case.shape, preprocessing.margin_voxels
    )
    start = _triple(each.start for each in box)
    shape = _triple(each.stop - each.start for each in box)
    spacing = _triple(case.spacing_mm)
    rounding = preprocessing.size_rounding
    try:
        new = resampled_shape(shape, spacing, spacing_mm, rounding=rounding)
    except InputError as error:
        raise error.within(case.image_path) from None
    num_modalities = max(len(case.percentiles), 1)
    require_resampling_memory(
        case.image_path,
        ResampledCrop(_triple(case.shape), start, shape, new),
        spacing_mm=spacing,
        target_mm=spacing_mm,
        num_modalities=num_modalities,
        max_memory_gb=max_memory_gb,
    )
    # float16 is the smallest type in which an image can be stored.
    require_record_size(
        case.image_path, new, num_modalities=num_modalities, image_dtype="float16"
    )
    return new


def median(triples: Iterable[Sequence[float]]) -> tuple[float, float, float]:
    """Returns the median of each of three numbers, rounded to six decimals."""
    return _triple(
        round(float(statistics.median(sizes)), 6)
        for sizes in zip(*triples, strict=True)
    )


def _triple(values: Iterable[Value]) -> tuple[Value, Value, Value]:
    z, y, x = values
    return z, y, x
