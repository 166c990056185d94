"""Preprocessing of a volume and, side by side, its exact inverse.

Raw volumes are cropped to the box of their non-zero voxels, resampled to the domain's
spacing, clipped to percentiles and standardized. `Placement` remembers the way back.

Reference: 3D U²-Net, section 3, "Preprocessing". The published code also raises
intensities below -1024 to that, takes mean and standard deviation over positive voxels
only and truncates the new size; the paper does none of these, and neither do we unless
the plan says so. It also keeps the centre of the first voxel in place, where we keep
the outer faces: only then does resampling there and back shift nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.interpolation.spline import resample_cubic
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.intensities import standardize

Shape = tuple[int, int, int]

# Volumes thinner than this along an axis are resampled linearly: too few for a cubic.
_BSPLINE_LEAST_VOXELS = 4
_INTERPOLATORS = {
    "linear": sitk.sitkLinear,
    "nearest": sitk.sitkNearestNeighbor,
}


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a preprocessed volume lies in the raw one. Triples are (z, y, x), voxels.

    Attributes:
      raw_shape: shape of the raw volume.
      crop_start: first raw voxel of the crop.
      crop_shape: shape of the crop, raw voxels.
      shape: shape after resampling.
    """

    raw_shape: Shape
    crop_start: Shape
    crop_shape: Shape
    shape: Shape

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The crop as an index into the raw volume."""
        return tuple(
            slice(start, start + size)
            for start, size in zip(self.crop_start, self.crop_shape, strict=True)
        )

    def raw_box(self, box: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        """The raw voxels that a box of the preprocessed volume covers, even in part."""
        rows = zip(box, self.crop_start, self.crop_shape, self.shape, strict=True)
        return tuple(
            slice(start + part.start * size // new, start - (-part.stop * size // new))
            for part, start, size, new in rows
        )


def nonzero_box(image: np.ndarray, *, margin_voxels: int) -> tuple[Shape, Shape]:
    """Start and shape of the box around the non-zero voxels, with a margin.

    Args:
      image: (z, y, x).
      margin_voxels: added on every side, as far as the volume reaches.

    Raises:
      InputError: if every voxel is zero.
    """
    start, shape = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hits = np.flatnonzero(np.any(image, axis=others))
        if hits.size == 0:
            raise InputError("image", expected="non-zero voxels", received="zeros only")
        first = max(int(hits[0]) - margin_voxels, 0)
        last = min(int(hits[-1]) + margin_voxels, image.shape[axis] - 1)
        start.append(first)
        shape.append(last - first + 1)
    return tuple(start), tuple(shape)


def resampled_shape(
    shape: Shape,
    spacing_mm: tuple[float, float, float],
    target_mm: tuple[float, float, float],
    *,
    rounding: str = "nearest",
) -> Shape:
    """Shape of the same extent at the target spacing, at least one voxel.

    Args:
      shape: voxels.
      spacing_mm: of these voxels.
      target_mm: the target spacing.
      rounding: "nearest" or "truncate". The latter takes spacings to three decimals,
        as the published code does, and divides exactly: no voxel of a multiple is lost
        because a header holds 0.7 as 0.69999999.

    Raises:
      InputError: if a spacing is 0 to three decimals and sizes are truncated.
    """
    rows = zip(shape, spacing_mm, target_mm, strict=True)
    if rounding == "nearest":
        return tuple(
            max(1, round(size * spacing / target)) for size, spacing, target in rows
        )
    if rounding != "truncate":
        raise ValueError(
            f"rounding: expected nearest or truncate. Received: {rounding!r}"
        )
    if min(*spacing_mm, *target_mm) < 0.001:
        raise InputError(
            "spacing_mm",
            expected="at least 0.001 mm, where sizes are truncated",
            received=f"{tuple(spacing_mm)}, to be resampled to {tuple(target_mm)}",
        )
    return tuple(
        max(1, size * round(1000 * spacing) // round(1000 * target))
        for size, spacing, target in rows
    )


def resample(array: np.ndarray, shape: Shape, interpolation: str) -> np.ndarray:
    """Resamples to another shape over the same extent.

    The outer faces of the outermost voxels stay where they are, so resampling there
    and back shifts nothing. An array that has the shape already is returned as it is.

    Args:
      array: (z, y, x).
      shape: the new shape.
      interpolation: "bspline" (order 3, for floats), "linear" or "nearest".

    Returns:
      An array of `shape` and the dtype of `array`.
    """
    if array.shape == tuple(shape):
        return array
    if interpolation == "bspline" and min(array.shape) < _BSPLINE_LEAST_VOXELS:
        interpolation = "linear"
    if interpolation == "bspline":
        return resample_cubic(array, shape)
    image = sitk.GetImageFromArray(array)
    ratios = [old / new for old, new in zip(array.shape, shape, strict=True)][::-1]
    resampled = sitk.Resample(
        image,
        [int(size) for size in shape][::-1],
        sitk.Transform(),
        _INTERPOLATORS[interpolation],
        [ratio / 2 - 0.5 for ratio in ratios],
        ratios,
        image.GetDirection(),
        0.0,
        image.GetPixelID(),
    )
    return sitk.GetArrayFromImage(resampled)


def preprocess_image(
    image: np.ndarray, spacing_mm: tuple[float, float, float], domain: Domain
) -> tuple[np.ndarray, Placement]:
    """Crop, resample, clip and standardize.

    Args:
      image: (C, z, y, x) float32, raw intensities.
      spacing_mm: its voxel size (z, y, x).
      domain: gives target spacing and `Preprocessing`.

    Returns:
      (z, y, x, C) float32 at the domain's spacing, and its placement.

    Raises:
      InputError: if the first modality is all zero or a modality is constant, or one
        has no positive voxels that differ where the domain's statistics are of these.
    """
    settings = domain.preprocessing
    start, crop = nonzero_box(image[0], margin_voxels=settings.margin_voxels)
    placement = Placement(
        raw_shape=tuple(image.shape[1:]),
        crop_start=start,
        crop_shape=crop,
        shape=resampled_shape(
            crop, spacing_mm, domain.spacing_mm, rounding=settings.size_rounding
        ),
    )
    result = np.empty((*placement.shape, image.shape[0]), np.float32)
    for channel, name in enumerate(domain.modalities):
        resampled = resample(image[channel][placement.box], placement.shape, "bspline")
        try:
            standardize(
                resampled,
                out=result[..., channel],
                clip_percentiles=settings.clip_percentiles,
                intensity_floor=settings.intensity_floor,
                statistics_over=settings.statistics_over,
            )
        except InputError as error:
            raise error.within(f"modality {name!r}") from None
    return result, placement


def preprocess_labels(labels: np.ndarray, placement: Placement) -> np.ndarray:
    """Raw grid -> preprocessed grid, nearest neighbour. (z, y, x) integers."""
    return resample(labels[placement.box], placement.shape, "nearest")


def restore_labels(labels: np.ndarray, placement: Placement) -> np.ndarray:
    """Inverse of `preprocess_labels`: background outside the crop."""
    restored = np.zeros(placement.raw_shape, labels.dtype)
    restored[placement.box] = resample(labels, placement.crop_shape, "nearest")
    return restored


def restore_probabilities(
    probabilities: np.ndarray, placement: Placement
) -> np.ndarray:
    """Preprocessed grid -> raw grid, linear: certain background outside the crop.

    Args:
      probabilities: (z, y, x, K), class 0 the background.
      placement: as `preprocess_image` returned it.

    Returns:
      (Z, Y, X, K) float32 on the raw grid.
    """
    num_classes = probabilities.shape[-1]
    restored = np.zeros((*placement.raw_shape, num_classes), np.float32)
    restored[..., 0] = 1
    for k in range(num_classes):
        channel = np.ascontiguousarray(probabilities[..., k], dtype=np.float32)
        restored[(*placement.box, k)] = resample(
            channel, placement.crop_shape, "linear"
        )
    return restored
