"""Resampling of a volume to a different shape."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from u2net_tf.interpolation.positions import resized_positions
from u2net_tf.interpolation.spline import resample_bspline

# Volumes with fewer voxels along an axis are too small for cubic splines.
_MIN_BSPLINE_VOXELS = 4
_INTERPOLATORS = {
    "linear": sitk.sitkLinear,
    "nearest": sitk.sitkNearestNeighbor,
}


def resample(
    array: np.ndarray, shape: tuple[int, int, int], interpolation: str
) -> np.ndarray:
    """Resamples to a different shape over the same extent.

    The outer faces of the outermost voxels stay in place, so resampling there and back
    shifts nothing. An array that already has the shape is returned unchanged.

    Args:
      array: (z, y, x).
      shape: the new shape.
      interpolation: "bspline" (order 3, for floats), "linear" or "nearest". Instead of
        splines, linear interpolation is used for volumes with fewer than 4 voxels along
        an axis.

    Returns:
      An array with `shape` and the dtype of `array`.
    """
    if array.shape == tuple(shape):
        return array
    if interpolation == "bspline" and min(array.shape) < _MIN_BSPLINE_VOXELS:
        interpolation = "linear"
    if interpolation == "bspline":
        return resample_bspline(array, shape)
    image = sitk.GetImageFromArray(array)
    # SimpleITK orders axes from x to z.
    sizes = list(zip(array.shape, shape, strict=True))[::-1]
    resampled = sitk.Resample(
        image,
        [int(new) for _, new in sizes],
        sitk.Transform(),
        _INTERPOLATORS[interpolation],
        [resized_positions(0, new=new, old=old) for old, new in sizes],
        [old / new for old, new in sizes],
        image.GetDirection(),
        0.0,
        image.GetPixelID(),
    )
    return sitk.GetArrayFromImage(resampled)
