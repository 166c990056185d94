"""Clipping and standardization of intensities, with few copies of the volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.plan.preprocessing import (
    IntensityStatistics,
    Preprocessing,
    StatisticsOver,
)

# Voxels along an axis of the sample that is searched for a majority value.
_SAMPLE_VOXELS = 24
# Statistics are accumulated over this many voxels at a time.
_VOXELS_AT_A_TIME = 2**22


def normalize(
    image: np.ndarray,
    settings: Preprocessing,
    channel: int,
    *,
    out: np.ndarray,
) -> None:
    """Clips and standardizes an image of one modality.

    Args:
      image: (z, y, x) float32.
      settings: provides limits, mean and standard deviation, or how to compute them.
      channel: index of the modality.
      out: array to write to, in the shape of `image`.

    Raises:
      InputError: see `standardize`.
    """
    statistics = settings.statistics_of(channel)
    if statistics is not None:
        standardize_with(image, statistics, out=out)
        return
    standardize(
        image,
        out=out,
        clip_percentiles=settings.clip_percentiles,
        intensity_floor=settings.intensity_floor,
        statistics_over=settings.statistics_over,
    )


def standardize(
    image: np.ndarray,
    *,
    clip_percentiles: tuple[float, float],
    intensity_floor: float | None = None,
    statistics_over: str = "all",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Clips to percentiles of the image, then subtracts the mean and divides by std.

    Args:
      image: (z, y, x) float32.
      clip_percentiles: lower and upper percentile.
      intensity_floor: intensities below it are first raised to it; None for none.
      statistics_over: "all", or "positive": mean and std are those of the clipped
        voxels above 0, and voxels of exactly 0 become 0, as in the published code.
      out: array to write to and return, in the shape of `image`; a new one if None.

    Raises:
      InputError: if the clipped image is constant, or the voxels that mean and std are
        computed over are constant or absent.
    """
    if statistics_over not in get_args(StatisticsOver):
        raise ValueError(
            f"statistics_over: expected all or positive. Received: {statistics_over!r}"
        )
    out = np.empty_like(image) if out is None else out
    if intensity_floor is not None:
        image = np.maximum(image, np.float32(intensity_floor), out=out)
    low, high = np.percentile(image, clip_percentiles)
    _require_difference(low, high, clip_percentiles)
    np.clip(image, np.float32(low), np.float32(high), out=out)
    if statistics_over == "all":
        return _standardize(out, *_mean_and_deviation(out))
    positive = out[out > 0]
    if positive.size == 0 or positive.min() == positive.max():
        received = f"the constant {positive[0]:g}" if positive.size else "none"
        raise InputError(
            "image",
            expected="intensities above 0 that differ, for mean and standard deviation "
            "(statistics_over: positive)",
            received=f"{received} between {low:g} and {high:g}",
        )
    zero = out == 0
    _standardize(out, *_mean_and_deviation(positive))
    out[zero] = 0
    return out


def standardize_with(
    image: np.ndarray,
    statistics: IntensityStatistics,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Clips and standardizes an image with statistics of other images.

    Reference: nnU-Net's normalization of CT.

    Args:
      image: (z, y, x) float32.
      statistics: limits of the intensities, then their mean and standard deviation.
      out: array to write to and return, in the shape of `image`; a new one if None.
    """
    low, high = np.float32(statistics.low), np.float32(statistics.high)
    out = np.clip(image, low, high, out=out)
    return _standardize(out, statistics.mean, statistics.std)


def standardization_bytes(shape: Sequence[int]) -> int:
    """Estimates what `standardize` allocates for an image, apart from the result."""
    voxels = math.prod(shape)
    # A copy for the percentiles, or of the positive voxels with a mask; and two copies
    # of a part in float64 for the deviation.
    part = min(voxels, _VOXELS_AT_A_TIME + voxels // shape[0])
    return 5 * voxels + 2 * 8 * part


def require_contrast(
    image: np.ndarray,
    *,
    names: Sequence[str],
    settings: Preprocessing,
) -> None:
    """Checks that no modality is constant after clipping.

    Resampling adds rounding errors to a constant, which standardization would amplify.

    Args:
      image: (C, z, y, x), the crop to be resampled.
      names: names of the modalities.
      settings: provides the limits to which each modality is clipped.

    Raises:
      InputError: if a modality is constant between the limits to which it is clipped.
    """
    for index, (channel, name) in enumerate(zip(image, names, strict=True)):
        statistics = settings.statistics_of(index)
        try:
            if statistics is None:
                _require_contrast(channel, settings.clip_percentiles)
            else:
                _require_overlap(channel, statistics)
        except InputError as error:
            raise error.within(f"modality {name!r}") from None


def _require_contrast(image: np.ndarray, percentiles: tuple[float, float]) -> None:
    fraction = (percentiles[1] - percentiles[0]) / 100
    steps = (max(1, size // _SAMPLE_VOXELS) for size in image.shape)
    sample = np.sort(image[tuple(slice(None, None, step) for step in steps)], axis=None)
    # A value that more than half of the voxels have is the median of any fair sample.
    # Counting its voxels is many times faster than computing percentiles.
    equal = np.count_nonzero(image == sample[sample.size // 2])
    if fraction > 0.5 and equal < fraction * (image.size - 1) - 1:
        return
    low, high = np.percentile(image, percentiles)
    _require_difference(low, high, percentiles)


def _require_overlap(image: np.ndarray, statistics: IntensityStatistics) -> None:
    low, high = image.min(), image.max()
    if max(low, statistics.low) >= min(high, statistics.high):
        raise InputError(
            "image",
            expected=f"intensities that differ between {statistics.low:g} and "
            f"{statistics.high:g}, the limits of the plan",
            received=f"intensities from {low:g} to {high:g}",
        )


def _require_difference(
    low: float, high: float, percentiles: tuple[float, float]
) -> None:
    if not high > low:
        raise InputError(
            "image",
            expected="intensities that differ between percentiles "
            f"{percentiles[0]:g} and {percentiles[1]:g}",
            received=f"the constant {low:g}",
        )


def _mean_and_deviation(voxels: np.ndarray) -> tuple[float, float]:
    """Returns mean and standard deviation in float64, without copying all voxels."""
    count = -(-voxels.size // _VOXELS_AT_A_TIME)
    parts = np.array_split(voxels, min(count, len(voxels)))
    mean = sum(part.sum(dtype=np.float64) for part in parts) / voxels.size
    squares = sum(np.square(part - mean, dtype=np.float64).sum() for part in parts)
    return mean, np.sqrt(squares / voxels.size)


def _standardize(image: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """Standardizes an image in place."""
    image -= np.float32(mean)
    image /= np.float32(deviation)
    return image
