"""Foreground that a crop to the non-zero voxels of the image would lose."""

from __future__ import annotations

import os

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.volumes.boxes import Box


def describe_cropped_foreground(
    foreground: np.ndarray, box: Box, *, path: str | os.PathLike
) -> str:
    """Describes foreground outside the crop, which is lost; "" if there is none.

    Args:
      foreground: (z, y, x), nonzero where a voxel is foreground.
      box: the crop.
      path: the label map, for the text.

    Raises:
      InputError: if all foreground is outside.
    """
    total = int(np.count_nonzero(foreground))
    outside = total - int(np.count_nonzero(foreground[box]))
    if not outside:
        return ""
    received = (
        f"{outside:,} of {total:,} voxels outside the bounding box of the non-zero "
        "voxels of the image"
    )
    if outside == total:
        raise InputError(
            path, expected="foreground within the image", received=received
        )
    return f"{path}: foreground with {received}, which are cropped"
