"""The maximum size of a record."""

from __future__ import annotations

import math

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.shards.manifest import ImageDtype

# A record is a protocol buffer, of at most 2 GiB; 1 MiB is left for the other fields.
MAX_RECORD_BYTES = 2**31 - 2**20


def require_record_size(
    where: object,
    shape: tuple[int, int, int],
    *,
    num_modalities: int,
    image_dtype: ImageDtype,
) -> None:
    """Checks that a preprocessed case fits into one record.

    Args:
      where: the file, for error messages.
      shape: shape after preprocessing, voxels.
      num_modalities: number of channels of the image.
      image_dtype: type in which the image is stored.

    Raises:
      InputError: if it does not.
    """
    # The image and one byte per voxel for the label map.
    bytes_per_voxel = num_modalities * np.dtype(image_dtype).itemsize + 1
    size = math.prod(shape) * bytes_per_voxel
    if size > MAX_RECORD_BYTES:
        raise InputError(
            where,
            expected=f"at most {MAX_RECORD_BYTES} bytes after preprocessing",
            received=f"{size} (shape {(*shape, num_modalities)} as {image_dtype})",
            hint="Use `image_dtype`=float16 or a coarser spacing_mm in the plan",
        )
