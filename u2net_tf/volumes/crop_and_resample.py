"""Preprocessing of a volume; its inverse is in `restoration`.

Raw volumes are cropped to the bounding box of their non-zero voxels, resampled to the
domain's spacing, clipped to percentiles and standardized. `ResampledCrop` contains what
is needed to invert this.

Reference: 3D U²-Net, section 3, "Preprocessing". The published code also raises
intensities below -1024 to -1024, takes mean and standard deviation over positive voxels
only and truncates the new size; the paper does none of these, and neither does this
module unless the plan requests it. The published code keeps the centre of the first
voxel in place. This module keeps the outer faces, so that resampling there and back
causes no shift.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.interpolation import spline
from u2net_tf.interpolation.resample import resample
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import intensities
from u2net_tf.volumes.boxes import Box, add_margin, bounding_box
from u2net_tf.volumes.grid import Volume
from u2net_tf.volumes.memory import require_memory

Shape = tuple[int, int, int]

# Voxels along an axis after resampling; far fewer fit into memory.
_MAX_VOXELS = 1e9


@dataclasses.dataclass(frozen=True)
class ResampledCrop:
    """Geometry of the crop and the resampling of a preprocessed volume.

    Triples are (z, y, x), voxels.

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
    def box(self) -> Box:
        """The crop as an index into the raw volume."""
        z, y, x = (
            slice(start, start + size)
            for start, size in zip(self.crop_start, self.crop_shape, strict=True)
        )
        return z, y, x

    def raw_box(self, box: Box) -> Box:
        """Returns the raw voxels that a preprocessed box covers, even in part."""
        rows = zip(box, self.crop_start, self.crop_shape, self.shape, strict=True)
        z, y, x = (
            slice(start + part.start * size // new, start - (-part.stop * size // new))
            for part, start, size, new in rows
        )
        return z, y, x


def nonzero_box(image: np.ndarray, *, margin_voxels: int) -> tuple[Shape, Shape]:
    """Returns start and shape of the bounding box of the non-zero voxels.

    Args:
      image: (z, y, x).
      margin_voxels: added on every side, within the bounds of the volume.

    Raises:
      InputError: if every voxel is zero.
    """
    box = bounding_box(image)
    if box is None:
        raise InputError("image", expected="non-zero voxels", received="zeros only")
    z, y, x = add_margin(box, margin_voxels, image.shape)
    shape = (z.stop - z.start, y.stop - y.start, x.stop - x.start)
    return (z.start, y.start, x.start), shape


def resampled_shape(
    shape: Shape,
    spacing_mm: tuple[float, float, float],
    target_mm: tuple[float, float, float],
    *,
    rounding: str = "nearest",
) -> Shape:
    """Returns the shape of the same extent at the target spacing, at least 1 per axis.

    Args:
      shape: original shape, voxels.
      spacing_mm: original spacing.
      target_mm: target spacing.
      rounding: "nearest" or "truncate". The latter rounds spacings to three decimals,
        as the published code does, and divides exactly, so that no voxel is lost
        because a header stores 0.7 as 0.69999999.

    Raises:
      InputError: if a spacing is 0 to three decimals and sizes are truncated, or an
        axis would have more voxels than could fit into memory.
    """
    rows = list(zip(shape, spacing_mm, target_mm, strict=True))
    largest = max(size * spacing / target for size, spacing, target in rows)
    if not largest < _MAX_VOXELS:
        raise InputError(
            "spacing_mm",
            expected=f"fewer than {_MAX_VOXELS:.0e} voxels along an axis",
            received=f"{largest:.3g}, if shape {shape} at {_in_mm(spacing_mm)} is "
            f"resampled to {_in_mm(target_mm)}",
        )
    if rounding == "nearest":
        z, y, x = (
            max(1, round(size * spacing / target)) for size, spacing, target in rows
        )
        return z, y, x
    if rounding != "truncate":
        raise ValueError(
            f"rounding: expected nearest or truncate. Received: {rounding!r}"
        )
    if min(*spacing_mm, *target_mm) < 0.001:
        raise InputError(
            "spacing_mm",
            expected="at least 0.001 mm, since sizes are truncated",
            received=f"{tuple(spacing_mm)}, to be resampled to {tuple(target_mm)}",
        )
    z, y, x = (
        max(1, size * round(1000 * spacing) // round(1000 * target))
        for size, spacing, target in rows
    )
    return z, y, x


def _in_mm(spacing_mm: tuple[float, float, float]) -> str:
    return " × ".join(f"{size:.6g}" for size in spacing_mm) + " mm"


def find_crop(
    image: Volume, domain: Domain, *, max_memory_gb: float | None = None
) -> ResampledCrop:
    """Determines how to crop and resample an image; errors name its file.

    Args:
      image: as returned by `case.read_image`.
      domain: provides target spacing and `Preprocessing`.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: if the first modality is all zero, or the resampled image does not fit
        into memory.
    """
    num_modalities, *_ = image.data.shape
    try:
        crop = _find_crop(image.data, image.spacing_mm, domain)
    except InputError as error:
        raise error.within(image.grid.path) from None
    require_resampling_memory(
        image.grid.path,
        crop,
        spacing_mm=image.spacing_mm,
        target_mm=domain.spacing_mm,
        num_modalities=num_modalities,
        max_memory_gb=max_memory_gb,
    )
    return crop


def require_resampling_memory(
    where: object,
    crop: ResampledCrop,
    *,
    spacing_mm: tuple[float, float, float],
    target_mm: tuple[float, float, float],
    num_modalities: int,
    max_memory_gb: float | None,
) -> None:
    """Checks that a resampled image fits into memory.

    Args:
      where: the file.
      crop: geometry of the crop and the resampling.
      spacing_mm: spacing of the raw image.
      target_mm: spacing of the resampled image.
      num_modalities: number of modalities of the image.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: if it does not.
    """
    require_memory(
        where,
        resampling_bytes(crop, num_modalities),
        content=f"shape {crop.crop_shape} at {_in_mm(spacing_mm)}, resampled to "
        f"{_in_mm(target_mm)}: shape {crop.shape}",
        max_memory_gb=max_memory_gb,
    )


def _find_crop(
    image: np.ndarray, spacing_mm: tuple[float, float, float], domain: Domain
) -> ResampledCrop:
    settings = domain.preprocessing
    start, shape = nonzero_box(image[0], margin_voxels=settings.margin_voxels)
    depth, height, width = image.shape[1:]
    return ResampledCrop(
        raw_shape=(depth, height, width),
        crop_start=start,
        crop_shape=shape,
        shape=resampled_shape(
            shape, spacing_mm, domain.spacing_mm, rounding=settings.size_rounding
        ),
    )


def resampling_bytes(crop: ResampledCrop, num_modalities: int) -> float:
    """Estimates what `preprocess_image` allocates."""
    # The resampled modality, and all of them standardized.
    volumes = 4 * (num_modalities + 1) * math.prod(crop.shape)
    return volumes + max(
        spline.resampling_bytes(crop.crop_shape, crop.shape),
        intensities.standardization_bytes(crop.shape),
    )


def preprocess_volume(
    image: Volume,
    domain: Domain,
    *,
    crop: ResampledCrop | None = None,
    max_memory_gb: float | None = None,
) -> tuple[np.ndarray, ResampledCrop]:
    """Preprocesses an image; errors name its file.

    Args:
      image: as returned by `case.read_image`.
      domain: provides target spacing and `Preprocessing`.
      crop: result of `find_crop`; None to compute it.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      As `preprocess_image`.

    Raises:
      InputError: if the image cannot be preprocessed as the domain requires, for
        example because it is constant between its percentiles.
    """
    crop = crop or find_crop(image, domain, max_memory_gb=max_memory_gb)
    try:
        return _preprocess(image.data, crop, domain), crop
    except InputError as error:
        raise error.within(image.grid.path) from None


def preprocess_image(
    image: np.ndarray, spacing_mm: tuple[float, float, float], domain: Domain
) -> tuple[np.ndarray, ResampledCrop]:
    """Crops, resamples, clips and standardizes an image.

    Args:
      image: (C, z, y, x) float32, raw intensities.
      spacing_mm: its voxel size (z, y, x).
      domain: provides target spacing and `Preprocessing`.

    Returns:
      (z, y, x, C) float32 at the domain's spacing, and how it was cropped and
      resampled.

    Raises:
      InputError: if the first modality is all zero, or a modality is constant or
        outside the limits of the intensity statistics, or, with statistics over
        positive voxels, these are absent or constant.
    """
    crop = _find_crop(image, spacing_mm, domain)
    return _preprocess(image, crop, domain), crop


def _preprocess(image: np.ndarray, crop: ResampledCrop, domain: Domain) -> np.ndarray:
    settings = domain.preprocessing
    z, y, x = crop.box
    intensities.require_contrast(
        image[:, z, y, x],
        names=domain.modalities,
        settings=settings,
    )
    result = np.empty((*crop.shape, image.shape[0]), np.float32)
    for channel, name in enumerate(domain.modalities):
        resampled = resample(image[channel][crop.box], crop.shape, "bspline")
        try:
            intensities.normalize(
                resampled, settings, channel, out=result[..., channel]
            )
        except InputError as error:
            raise error.within(f"modality {name!r}") from None
    return result


def preprocess_labels(labels: np.ndarray, crop: ResampledCrop) -> np.ndarray:
    """Resamples (z, y, x) integer labels from the raw grid by nearest neighbours."""
    return resample(labels[crop.box], crop.shape, "nearest")
