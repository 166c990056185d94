"""Measurements of an image and its label map for the survey."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from u2net_tf.plan.preprocessing import FOREGROUND_PERCENTILES, IntensityStatistics
from u2net_tf.volumes import case_labels, components, crop_and_resample
from u2net_tf.volumes.boxes import Box, add_margin
from u2net_tf.volumes.grid import Volume

# Percentiles of the intensities of a scan.
PERCENTILES = (0, 2, 50, 98, 100)
# Key of the entire foreground in `CaseFacts.component_shares`.
FOREGROUND = "foreground"


def measure_image(image: Volume) -> dict[str, Any]:
    """Measures an image; returns fields of `CaseFacts`."""
    first = image.data[0]
    facts = {
        "shape": first.shape,
        "spacing_mm": tuple(round(size, 6) or size for size in image.spacing_mm),
        "orientation": image.grid.axis_codes,
        "length_unit": image.grid.length_unit,
        "percentiles": tuple(_percentiles(channel) for channel in image.data),
        "nonzero_share": float(np.count_nonzero(first) / first.size),
        "checksum": hashlib.blake2b(image.data.data, digest_size=16).hexdigest(),
        "box_share": 0.0,
    }
    if first.any():
        start, shape = crop_and_resample.nonzero_box(first, margin_voxels=0)
        facts |= {"box_start": start, "box_shape": shape}
        facts["box_share"] = float(np.prod(shape, dtype=float) / first.size)
    return facts


def box_with_margin(
    start: Sequence[int], shape: Sequence[int], bounds: Sequence[int], margin: int
) -> Box:
    """Returns the bounding box of an image with a margin, from its recorded facts.

    Args:
      start: first voxel of the box without a margin.
      shape: shape of that box, voxels.
      bounds: shape of the image.
      margin: voxels to add on every side, within the bounds.
    """
    z, y, x = (slice(a, a + b) for a, b in zip(start, shape, strict=True))
    return add_margin((z, y, x), margin, bounds)


def measure_labels(
    labels: np.ndarray, image: Volume | None, known: tuple[int, ...]
) -> dict[str, Any]:
    """Measures a label map, and the image in its foreground; returns facts of a case.

    Args:
      labels: (z, y, x) label values.
      image: the image, perhaps of another shape; None if it could not be read.
      known: values of the classes.
    """
    foreground = np.isin(labels, [value for value in known if value])
    counts = case_labels.count_values(labels)
    voxels = {str(value): count for value, count in counts.items()}
    shares = {}
    for value in known:
        if value and str(value) in voxels:
            shares[str(value)] = _largest_shares(labels == value)
    if len(shares) == 1:
        shares[FOREGROUND] = next(iter(shares.values()))
    elif shares:
        shares[FOREGROUND] = _largest_shares(foreground)
    facts = {"label_voxels": voxels, "component_shares": shares}
    return facts | _measure_foreground(image, foreground)


def _measure_foreground(image: Volume | None, foreground: np.ndarray) -> dict[str, Any]:
    if image is None or image.data.shape[1:] != foreground.shape:
        return {}
    found = []
    for channel in image.data:
        values = channel[foreground]
        values = values[np.isfinite(values)].astype(np.float64)
        if not values.size:
            return {"foreground_intensities": ()}
        low, high = np.percentile(values, FOREGROUND_PERCENTILES)
        found.append(
            IntensityStatistics(
                low=float(low),
                high=float(high),
                mean=float(values.mean()),
                std=float(values.std()),
            )
        )
    return {"foreground_intensities": tuple(found)}


def _percentiles(channel: np.ndarray) -> tuple[float, ...]:
    finite = channel[np.isfinite(channel)]
    if not finite.size:
        return ()
    return tuple(float(value) for value in np.percentile(finite, PERCENTILES))


def _largest_shares(mask: np.ndarray) -> tuple[float, float]:
    sizes = components.component_sizes(mask)
    total = float(sizes.sum())
    return float(sizes[:1].sum() / total), float(sizes[:2].sum() / total)
