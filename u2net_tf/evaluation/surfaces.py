"""Distances between the surfaces of a reference and of a prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from u2net_tf.volumes.boxes import add_margin, bounding_box

_PERCENTILE = 95


class SurfaceScore(NamedTuple):
    """Scores of one class.

    Attributes:
      hd95_mm: larger one of two percentiles: the 95th percentile of the distances of
        the reference's surface from that of the prediction, and vice versa; NaN if
        either surface is empty.
      surface_dice: fraction of both surfaces that is at most a tolerance away from the
        other one, from 0 to 1; 0 if one surface is empty, NaN if both are.
    """

    hd95_mm: float
    surface_dice: float


def surface_scores(
    reference: np.ndarray,
    prediction: np.ndarray,
    *,
    num_classes: int,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
    is_annotated: np.ndarray | None = None,
) -> list[SurfaceScore]:
    """Computes the surface scores of every foreground class.

    The surface of a mask consists of its voxels of whose six neighbours one is outside
    the mask or the volume; neighbours without annotation do not count. Distances are
    those between the centres of voxels, and every voxel of a surface counts equally, as
    in MONAI.

    Args:
      reference: (z, y, x) class indices.
      prediction: (z, y, x) class indices.
      num_classes: including the background.
      spacing_mm: voxel size z, y, x.
      tolerance_mm: distance up to which two surfaces agree.
      is_annotated: (z, y, x), false where both masks are background because the
        reference is unknown; None if it is known everywhere.

    Reference: Nikolov et al., Clinically applicable segmentation of head and neck
    anatomy, JMIR 2021 (surface Dice), which weights surfaces by their area.
    """
    found = []
    for index in range(1, num_classes):
        masks = reference == index, prediction == index
        box = bounding_box(masks[0] | masks[1])
        if box is None:
            found.append(SurfaceScore(math.nan, math.nan))
            continue
        known = None
        if is_annotated is not None:
            box = add_margin(box, 1, is_annotated.shape)
            known = is_annotated[box]
        surfaces = [_surface(mask[box], known) for mask in masks]
        del masks
        sizes = [np.count_nonzero(surface) for surface in surfaces]
        if not all(sizes):
            # A mask is empty, or fills all that is annotated.
            found.append(SurfaceScore(math.nan, 0.0 if any(sizes) else math.nan))
            continue
        # A distance equal to the tolerance may exceed it by the rounding errors of
        # ITK's float32 coordinates.
        extent_mm = math.hypot(*np.multiply(surfaces[0].shape, spacing_mm))
        limit_mm = tolerance_mm + 2 * np.finfo(np.float32).eps * extent_mm
        distances = [
            _distances(each, other, spacing_mm)
            for each, other in (surfaces, reversed(surfaces))
        ]
        agreeing = sum(int((each <= limit_mm).sum()) for each in distances)
        found.append(
            SurfaceScore(
                max(float(np.percentile(each, _PERCENTILE)) for each in distances),
                agreeing / sum(each.size for each in distances),
            )
        )
    return found


def _surface(mask: np.ndarray, is_annotated: np.ndarray | None) -> np.ndarray:
    """Returns the voxels of a mask with a neighbour outside it, along any axis."""
    padded = np.pad(mask if is_annotated is None else mask | ~is_annotated, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            shifted = np.roll(padded, step, axis)
            inner &= shifted[(slice(1, -1),) * mask.ndim]
    return mask & ~inner


def _distances(
    surface: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Returns the distance (mm) of each voxel of a surface from the other surface."""
    image = sitk.GetImageFromArray(other.view(np.uint8))
    image.SetSpacing([float(size) for size in reversed(spacing_mm)])
    distance_map = sitk.SignedMaurerDistanceMap(
        image, squaredDistance=False, useImageSpacing=True
    )
    # Negative where a voxel has only neighbours of the surface itself, and not a
    # distance at all if there are no others.
    return np.maximum(sitk.GetArrayViewFromImage(distance_map)[surface], 0)
