"""Compares a label map with its reference: Dice, false positives and surfaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from u2net_tf.evaluation.metrics import (
    annotated_only,
    dice,
    false_positive_ml,
    region_masks,
)
from u2net_tf.evaluation.surfaces import SurfaceScore, surface_scores
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Region
from u2net_tf.volumes.class_volumes import voxel_volume_ml
from u2net_tf.volumes.grid import Grid

# Bytes per voxel while two label maps are read and compared. At most 23.6 were
# measured, with surfaces and an ignore label, and 18.3 without surfaces.
_BYTES_PER_VOXEL = 25


def comparison_bytes(num_voxels: int) -> int:
    """Estimates the memory of reading and comparing two label maps of so many voxels.

    It is an upper bound.
    """
    return _BYTES_PER_VOXEL * num_voxels


def compare(
    reference: np.ndarray,
    prediction: np.ndarray,
    grid: Grid,
    domain: Domain,
    regions: Sequence[Region],
    *,
    surface_tolerance_mm: float | None = None,
) -> dict[str, dict[str, float]]:
    """Compares a label map with its reference.

    Args:
      reference: (z, y, x) class indices, or the domain's `ignore_index`.
      prediction: class indices on the same grid.
      grid: the grid.
      domain: provides the classes.
      regions: regions to compare in addition to the classes.
      surface_tolerance_mm: tolerance of the surface Dice; None if surfaces are not
        compared.

    Returns:
      "dice", "false_positive_ml" and, if surfaces are compared, the fields of
      `SurfaceScore` -> name of a class or region -> value. See `scored_case.Score`.
    """
    is_annotated = None
    if domain.ignore_index is not None:
        is_annotated = reference != domain.ignore_index
    masks = annotated_only(reference, prediction, domain.ignore_index)
    names = [label.name for label in domain.labels[1:]]
    inside = [(names, masks)]
    for region in regions:
        indices = region.class_indices(domain.labels)
        inside.append(([region.name], region_masks(masks, indices)))
    found: dict[str, dict[str, float]] = {}
    for each, its_masks in inside:
        values = _compare_classes(
            *its_masks,
            num_classes=len(each) + 1,
            grid=grid,
            spacing_source=domain.preprocessing.spacing_source,
            is_annotated=is_annotated,
            surface_tolerance_mm=surface_tolerance_mm,
        )
        for field, of_field in values.items():
            pairs = zip(each, map(float, of_field), strict=True)
            found.setdefault(field, {}).update(pairs)
    volumes = found["false_positive_ml"].items()
    found["false_positive_ml"] = {k: v for k, v in volumes if not math.isnan(v)}
    return found


def _compare_classes(
    reference: np.ndarray,
    prediction: np.ndarray,
    *,
    num_classes: int,
    grid: Grid,
    spacing_source: str,
    is_annotated: np.ndarray | None,
    surface_tolerance_mm: float | None,
) -> dict[str, Iterable[float]]:
    """Returns field -> value of each foreground class."""
    found: dict[str, Iterable[float]] = {
        "dice": dice(reference, prediction, num_classes=num_classes),
        "false_positive_ml": false_positive_ml(
            reference,
            prediction,
            num_classes=num_classes,
            voxel_ml=voxel_volume_ml(grid, spacing_source),
        ),
    }
    if surface_tolerance_mm is not None:
        surfaces = surface_scores(
            reference,
            prediction,
            num_classes=num_classes,
            spacing_mm=grid.spacing_mm(spacing_source),
            tolerance_mm=surface_tolerance_mm,
            is_annotated=is_annotated,
        )
        for name in SurfaceScore._fields:
            found[name] = [getattr(one, name) for one in surfaces]
    return found
