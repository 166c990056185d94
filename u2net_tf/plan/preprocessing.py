"""Preprocessing of the raw volumes of a domain, a part of the plan."""

from __future__ import annotations

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

    def __post_init__(self) -> None:
        for index, statistics in enumerate(self.intensity_statistics or ()):
            if statistics and not (statistics.low < statistics.high and statistics.std):
                raise InputError(
                    f"intensity_statistics[{index}]",
                    expected="low < high and std > 0",
                    received=f"low {statistics.low:g}, high {statistics.high:g}, "
                    f"std {statistics.std:g}",
                )
        lower, upper = self.clip_percentiles
        if lower >= upper:
            raise InputError(
                "clip_percentiles",
                expected="two numbers, 0 <= lower < upper <= 100",
                received=f"{lower:g}, {upper:g}",
            )
