"""Preprocessing of the raw volumes of a domain, a part of the plan."""

from __future__ import annotations

import math
import struct
from typing import Annotated, Literal, get_args

from pydantic import Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.schema import Margin

SpacingSource = Literal["pixdim", "affine"]
UnknownLabels = Literal["fail", "background"]
StatisticsOver = Literal["all", "positive"]
SizeRounding = Literal["nearest", "truncate"]
SPACING_SOURCES = get_args(SpacingSource)
Percentile = Annotated[float, Field(ge=0, le=100)]
# Percentiles of the foreground to which intensities are clipped, as in nnU-Net.
FOREGROUND_PERCENTILES = (0.5, 99.5)
# Largest ratio of the range of clipped intensities and their standard deviation.
_MAX_RATIO = 1_000


@schema.model
class IntensityStatistics:
    """Statistics of the intensities of one modality, over voxels of the foreground.

    Attributes:
      low: the lower of `FOREGROUND_PERCENTILES`.
      high: the upper of `FOREGROUND_PERCENTILES`.
      mean: arithmetic mean.
      std: standard deviation.
    """

    low: float
    high: float
    mean: float
    std: Annotated[float, Field(ge=0)]


def check_statistics(statistics: IntensityStatistics) -> None:
    """Raises InputError if images cannot be standardized with these statistics.

    The limits must differ in float32, and results must fit into float16, the type of
    images in shards.
    """
    low, high = _to_float32(statistics.low), _to_float32(statistics.high)
    span = high - low
    is_valid = (
        math.isfinite(span)
        and low < high
        and statistics.low <= statistics.mean <= statistics.high
        and span / _MAX_RATIO <= statistics.std <= _MAX_RATIO * span
    )
    if not is_valid:
        raise InputError(
            "",
            expected="low < high that differ in float32, mean between them, and std "
            f"from (high - low)/{_MAX_RATIO:,} to {_MAX_RATIO:,}·(high - low)",
            received=f"low {statistics.low!r}, high {statistics.high!r}, "
            f"mean {statistics.mean!r}, std {statistics.std!r}",
        )


def _to_float32(value: float) -> float:
    # Without NumPy, which command lines are parsed without.
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


@schema.model
class Preprocessing:
    """Preprocessing of the raw volumes of one domain.

    The defaults are those of the paper. The published code differs in `intensity_floor`
    (-1024), `statistics_over` ("positive") and `size_rounding` ("truncate").

    Attributes:
      margin_voxels: margin around the bounding box of the non-zero voxels, raw voxels.
      clip_percentiles: lower and upper percentile that intensities are clipped to.
      spacing_source: header field to use for the spacing if `pixdim` and the affine
        disagree: "pixdim" or "affine".
      unknown_labels: treatment of label values that belong to no class: "fail" or
        "background".
      intensity_floor: lower limit that resampled intensities of every modality are
        clipped to before percentiles are computed; None for no limit.
      statistics_over: voxels that mean and standard deviation are computed over: "all",
        or "positive" for those above 0, where voxels of exactly 0 remain 0.
      size_rounding: rounding of the size of a resampled volume: "nearest" or
        "truncate".
      round_labels: whether label values that are close to integers are rounded.
      resample_modalities: whether modalities whose grid differs from that of the first
        are resampled to it.
      intensity_statistics: per modality, the statistics with which all scans are
        clipped and standardized, as nnU-Net does for CT; None for those of each scan
        (`intensity_floor`, `clip_percentiles` and `statistics_over`). None instead of a
        tuple if this is so for all modalities.
    """

    margin_voxels: Margin = 5
    clip_percentiles: tuple[Percentile, Percentile] = (2.0, 98.0)
    spacing_source: SpacingSource = "pixdim"
    unknown_labels: UnknownLabels = "fail"
    intensity_floor: float | None = None
    statistics_over: StatisticsOver = "all"
    size_rounding: SizeRounding = "nearest"
    round_labels: bool = False
    resample_modalities: bool = False
    intensity_statistics: tuple[IntensityStatistics | None, ...] | None = None

    def statistics_of(self, channel: int) -> IntensityStatistics | None:
        """Returns the statistics of a modality; None for those of each scan."""
        every = self.intensity_statistics
        return None if every is None else every[channel]

    def __post_init__(self) -> None:
        for index, statistics in enumerate(self.intensity_statistics or ()):
            try:
                if statistics is not None:
                    check_statistics(statistics)
            except InputError as error:
                raise error.within(f"intensity_statistics[{index}]") from None
        if self.intensity_statistics and not any(self.intensity_statistics):
            raise InputError(
                "intensity_statistics",
                expected="null, or statistics of at least one modality",
                received="null for every modality",
            )
        lower, upper = self.clip_percentiles
        if lower >= upper:
            raise InputError(
                "clip_percentiles",
                expected="two numbers, 0 <= lower < upper <= 100",
                received=f"{lower:g}, {upper:g}",
            )
