"""Estimates the memory that a scan takes while it is read and preprocessed.

The estimates are upper bounds, from shapes alone, of the total size of the arrays of
each stage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import images
from u2net_tf.volumes.crop_and_resample import (
    ResampledCrop,
    resampled_shape,
    resampling_bytes,
)
from u2net_tf.volumes.grid import Grid

_FLOAT = 4
# Bytes per voxel and modality while a file is read: as stored, and twice in float32.
_BYTES_READ = 4 * _FLOAT


@dataclasses.dataclass(frozen=True)
class ImageSize:
    """Size of an image by its headers.

    Attributes:
      grid: grid of the first file.
      num_modalities: number of modalities.
      num_voxels: number of voxels of the largest modality.
    """

    grid: Grid
    num_modalities: int
    num_voxels: int

    @property
    def num_values(self) -> int:
        """Upper bound of the number of voxels of all modalities together."""
        return self.num_modalities * self.num_voxels


def image_size(
    paths: Sequence[str | os.PathLike],
    *,
    resample_modalities: bool = False,
    max_memory_gb: float | None = None,
) -> ImageSize | None:
    """Returns the size of an image; None if its header is damaged or refused.

    Args:
      paths: see `images.load_image`.
      resample_modalities: whether files may differ in their shape. If not, only the
        header of the first is read, since this takes a while for many cases.
      max_memory_gb: see `memory.require_memory`.
    """
    headers = []
    for path in paths if resample_modalities else paths[:1]:
        # Reading the image raises an error with the reason.
        with contextlib.suppress(InputError):
            headers.append(images.load_header(path, max_memory_gb=max_memory_gb))
    if not headers:
        return None
    num_modalities = (math.prod(header.shape[3:]) for header in headers)
    return ImageSize(
        headers[0].grid,
        max(len(paths), *num_modalities),
        max(math.prod(header.grid.shape) for header in headers),
    )


def uncropped(grid: Grid, domain: Domain) -> ResampledCrop:
    """Returns how a scan is resampled without cropping, which takes the most memory.

    Args:
      grid: grid of the scan.
      domain: provides the spacing.

    Raises:
      InputError: if an axis would have more voxels than fit into any memory.
    """
    depth, height, width = grid.canonical_view(
        np.broadcast_to(np.uint8(0), grid.shape)
    ).shape
    settings = domain.preprocessing
    shape = resampled_shape(
        (depth, height, width),
        grid.spacing_mm(settings.spacing_source),
        domain.spacing_mm,
        rounding=settings.size_rounding,
    )
    raw_shape = (depth, height, width)
    return ResampledCrop(raw_shape, (0, 0, 0), raw_shape, shape)


def reading_bytes(num_values: int) -> int:
    """Estimates the bytes of an image while it is read.

    Args:
      num_values: number of voxels of all modalities together.
    """
    return _BYTES_READ * num_values


def preparation_bytes(crop: ResampledCrop, num_modalities: int) -> float:
    """Estimates the bytes of a scan until it is preprocessed, and while it waits."""
    raw = num_modalities * math.prod(crop.raw_shape)
    return max(
        reading_bytes(raw), _FLOAT * raw + resampling_bytes(crop, num_modalities)
    )
