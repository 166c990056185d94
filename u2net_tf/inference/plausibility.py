"""Whether a scan looks like those of a domain: what a wrong file or unit gives away.

A scan that does not is predicted all the same. Plans of release 0.1.0 do not say what
their scans were like: then median spacing and size and the names of modalities have to
do, and nothing is known of intensities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from u2net_tf.plan.domains import AXES, Domain
from u2net_tf.plan.scan_ranges import PERCENTILES, Range
from u2net_tf.volumes.grid import Volume

# Spacing and extent are far off beyond this factor of the domain's range.
_MAX_FACTOR = 2.0
# And beyond this one of its median: slices of 5 mm among those of 1.5 mm are common, a
# slipped unit or swapped axes are a factor of 10.
_MAX_FACTOR_OF_MEDIAN = 4.0
# Intensities are far off beyond this share of all that the domain's scans span.
_MAX_SHIFT = 0.5
# Images have more different intensities than this, label maps fewer.
_MAX_LABELS = 16
# Intensities are looked at in about so many voxels, evenly spread.
_NUM_SAMPLES = 1_000_000
# Hounsfield units: below lie lung and air, which other modalities do not store so.
_AIR_HU = -500
_MIN_AIR_SHARE = 0.01
_CT = re.compile(r"\bCT|CT\b|tomogra", re.IGNORECASE)


def differences(image: Volume, domain: Domain) -> list[str]:
    """In what a scan is far from those of a domain, in words; empty if in nothing.

    Args:
      image: (C, z, y, x) as `volumes.case.read_image` returns it.
      domain: what it is to be predicted as.
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
            yield f"{what} of {size:.3g} mm along {axis}, not {_range(low, high)} mm"


def _odd_intensities(image: Volume, domain: Domain) -> Iterator[str]:
    step = max(1, round((image.data[0].size / _NUM_SAMPLES) ** (1 / 3)))
    for index, (name, data) in enumerate(
        zip(domain.modalities, image.data, strict=True)
    ):
        values = data[::step, ::step, ::step]
        distinct = np.unique(values)
        if len(distinct) <= _MAX_LABELS and (distinct == np.rint(distinct)).all():
            yield f"{name}: only {len(distinct)} different intensities, as a label map"
        elif domain.scans is not None:
            yield from _far_intensities(name, values, domain.scans.intensities[index])
        elif not _CT.search(name):
            air = np.mean(values < _AIR_HU)
            if air > _MIN_AIR_SHARE:
                yield (
                    f"{name}: {air:.0%} of the intensities below {_AIR_HU}, as CT in "
                    "Hounsfield units has"
                )


def _far_intensities(
    name: str, values: np.ndarray, ranges: Sequence[Range]
) -> Iterator[str]:
    margin = _MAX_SHIFT * (ranges[-1][1] - ranges[0][0])
    received = np.percentile(values, PERCENTILES)
    for share, value, (low, high) in zip(PERCENTILES, received, ranges, strict=True):
        if not low - margin <= value <= high + margin:
            yield (
                f"{name}: {share} % of the intensities up to {value:.4g}, not "
                f"{_range(low, high)}"
            )


def _range(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
