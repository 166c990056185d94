"""Checks whether a scan resembles those of a domain, to detect wrong files and units.

A scan that differs is predicted nevertheless. Plans of release 0.1.0 do not describe
their scans: for these, only the median spacing and size and the names of modalities are
used, and intensities are unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from u2net_tf.plan.domains import AXES, Domain
from u2net_tf.plan.scan_ranges import PERCENTILES, Range
from u2net_tf.volumes.grid import Volume
from u2net_tf.wording import three_digits

# Spacings and extents are reported if they exceed the domain's range by this factor.
_MAX_FACTOR = 2.0
# The same for the median: slices of 5 mm among those of 1.5 mm are common; a wrong unit
# or swapped axes are a factor of 10.
_MAX_FACTOR_OF_MEDIAN = 4.0
# Intensities outside the domain's range by more than this fraction of it are reported.
_MAX_SHIFT = 0.5
# Images have more distinct intensities than this; label maps have fewer.
_MAX_LABELS = 16
# Approximate number of voxels, evenly spaced, whose intensities are checked.
_NUM_SAMPLES = 1_000_000
# Lung and air are below this in Hounsfield units; other modalities have no such values.
_AIR_HU = -500
_MIN_AIR_FRACTION = 0.01
_CT = re.compile(r"\bCT|CT\b|tomogra", re.IGNORECASE)


def differences(image: Volume, domain: Domain) -> list[str]:
    """Describes how a scan differs from those of a domain; empty if it does not.

    Args:
      image: (C, z, y, x) as returned by `volumes.case.read_image`.
      domain: domain that is predicted.
    """
    extent_mm = np.multiply(image.data.shape[1:], image.spacing_mm).tolist()
    scans = domain.scans
    if scans is not None:
        factor = _MAX_FACTOR
        spacings: Sequence[Range] = scans.spacing_mm
        extents: Sequence[Range] = scans.extent_mm
    else:
        factor = _MAX_FACTOR_OF_MEDIAN
        median_mm = np.multiply(domain.median_shape, domain.spacing_mm).tolist()
        spacings = [(size, size) for size in domain.spacing_mm]
        extents = [(size, size) for size in median_mm]
    return [
        *_far_sizes("voxels", image.spacing_mm, spacings, factor),
        *_far_sizes("an extent", extent_mm, extents, factor),
        *_odd_intensities(image, domain),
    ]


def _far_sizes(
    what: str, received: Sequence[float], ranges: Sequence[Range], factor: float
) -> Iterator[str]:
    for axis, size, (low, high) in zip(AXES, received, ranges, strict=True):
        if not low / factor <= size <= high * factor:
            usual = _range(low, high)
            yield f"{what} of {three_digits(size)} mm along {axis}, not {usual} mm"


def _odd_intensities(image: Volume, domain: Domain) -> Iterator[str]:
    step = max(1, round((image.data[0].size / _NUM_SAMPLES) ** (1 / 3)))
    for index, (name, data) in enumerate(
        zip(domain.modalities, image.data, strict=True)
    ):
        values = data[::step, ::step, ::step]
        distinct = np.unique(values)
        if len(distinct) <= _MAX_LABELS and (distinct == np.rint(distinct)).all():
            yield f"{name}: only {len(distinct)} distinct intensities, like a label map"
        elif domain.scans is not None:
            yield from _far_intensities(name, values, domain.scans.intensities[index])
        elif not _CT.search(name):
            air = np.mean(values < _AIR_HU)
            if air > _MIN_AIR_FRACTION:
                yield (
                    f"{name}: {air:.0%} of the intensities below {_AIR_HU}, like CT in "
                    "Hounsfield units"
                )


def _far_intensities(
    name: str, values: np.ndarray, ranges: Sequence[Range]
) -> Iterator[str]:
    margin = _MAX_SHIFT * (ranges[-1][1] - ranges[0][0])
    received = np.percentile(values, PERCENTILES)
    for percent, value, (low, high) in zip(PERCENTILES, received, ranges, strict=True):
        if not low - margin <= value <= high + margin:
            yield (
                f"{name}: percentile {percent} of the intensities is {value:.4g}, not "
                f"{_range(low, high)}"
            )


def _range(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
