"""Compiled interpolation of a patch at arbitrary coordinates.

XLA compiles the coordinates, the weights and the reads of all neighbours into one loop
over the voxels, which is several times as fast as separate operations. XLA requires
static shapes, so a patch is read from a box of constant size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.errors import InputError
from u2net_tf.input.augmentation import spatial as spatial_module
from u2net_tf.input.augmentation.spatial import PatchGrid, SpatialParameters
from u2net_tf.interpolation import kernels

# Largest box that a patch may read: 1.5 GB as a float16 image and labels.
MAX_VOXELS = 2**29
# Most random numbers of the elastic deformation of a patch: 128 MiB.
MAX_NOISE = 2**25
# Neighbours on each side of a position along an axis, by method, and their weights at
# its fractional offset.
_TAPS = {"linear": 1, "cubic": 2}
_WEIGHTS = {"linear": kernels.linear_weights, "cubic": kernels.keys_cubic_weights}


class Warp:
    """Interpolates augmented patches of one shape.

    A patch is read from a box of its volume: `box_size` voxels from `box_start` on, of
    which `unused_margin` voxels at either end of each axis are never read. The caller
    crops the box, and pads it if it extends beyond the volume.

    Args:
      grid: voxel grid of the patch.
      augmentation: probabilities and ranges of the transforms.
      method: "linear" or "cubic" (Keys 1981, a = -0.5) for images; labels take the
        nearest voxel.

    Attributes:
      box_size: z, y, x.

    Raises:
      InputError: if a patch may need more than `MAX_VOXELS` of its volume, or more than
        `MAX_NOISE` random numbers for its elastic deformation.
    """

    def __init__(self, grid: PatchGrid, augmentation: AugmentationConfig, method: str):
        kernels.check_method(method)
        self._grid = grid
        self._augmentation = augmentation
        self._method = method
        reach = np.ceil(spatial_module.largest_extent(grid, augmentation) + 1e-3)
        self._half = [int(extent) + _TAPS[method] for extent in reach]
        self.box_size = tuple(2 * half + 2 for half in self._half)
        if math.prod(self.box_size) > MAX_VOXELS:
            raise InputError(
                "`elastic_alpha`, `elastic_sigma_mm`, `scale`",
                expected=f"values with which a patch of {grid.patch_size} voxels reads "
                f"at most {MAX_VOXELS} voxels",
                received=f"{math.prod(self.box_size)}, a box of {self.box_size}",
            )
        _check_noise(grid, augmentation)
        # The centre of a patch of even size lies between two voxels.
        self._middle = [(size - 1) // 2 for size in grid.patch_size]
        self._interpolate = tf.function(
            self._interpolate_box, jit_compile=True, autograph=False
        )

    def box_start(self, first: tf.Tensor) -> tf.Tensor:
        """Returns the first voxel of the box of the patch at `first`. (3,) int32."""
        return first + tf.constant(self._middle) - tf.constant(self._half)

    def unused_margin(self, drawn: SpatialParameters) -> tf.Tensor:
        """Returns the margin of the box that is not read by a patch. (3,) int32."""
        extent = tf.math.ceil(spatial_module.needed_extent(self._grid, drawn) + 1e-3)
        half, taps = tf.constant(self._half), _TAPS[self._method]
        return tf.maximum(half - tf.cast(extent, tf.int32) - taps, 0)

    def __call__(
        self, channels: tf.Tensor, labels: tf.Tensor, drawn: SpatialParameters
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Interpolates a patch.

        Args:
          channels: (C, *box_size) image of any float type, static.
          labels: (*box_size).
          drawn: parameters of the transforms.

        Returns:
          The (*size, C) float32 image and the (*size) labels.
        """
        return self._interpolate(channels, labels, drawn)

    def _interpolate_box(
        self, channels: tf.Tensor, labels: tf.Tensor, drawn: SpatialParameters
    ) -> tuple[tf.Tensor, tf.Tensor]:
        centre = [
            half + (size - 1) / 2 - middle
            for half, size, middle in zip(
                self._half, self._grid.patch_size, self._middle, strict=True
            )
        ]
        coordinates = spatial_module.coordinates(self._grid, self._augmentation, drawn)
        positions = [
            along + offset for along, offset in zip(coordinates, centre, strict=True)
        ]
        return (
            interpolate_image(channels, positions, method=self._method),
            interpolate_labels(labels, positions),
        )


def _check_noise(grid: PatchGrid, augmentation: AugmentationConfig) -> None:
    shape = spatial_module.elastic_noise_shape(grid, augmentation)
    if math.prod(shape) > MAX_NOISE:
        lowest = augmentation.elastic_sigma_mm[0]
        raise InputError(
            "`elastic_sigma_mm`",
            expected=f"a lowest value with which a patch of {grid.patch_size} voxels "
            f"of {grid.spacing_mm} mm needs at most {MAX_NOISE} random numbers",
            received=f"{math.prod(shape)}, three lattices of {shape[1:]} points "
            f"{lowest:g} mm apart",
        )


def interpolate_image(
    channels: tf.Tensor, positions: Sequence[tf.Tensor], *, method: str
) -> tf.Tensor:
    """Interpolates an image.

    Args:
      channels: (C, z, y, x) of any float type, static.
      positions: z, y and x of the positions, of shapes that broadcast; all neighbours
        must be inside the image.
      method: "linear" or "cubic".

    Returns:
      float32 of the shape of the positions, with C as the last axis.
    """
    num_channels, *size = channels.shape.as_list()
    flat = tf.unstack(tf.reshape(channels, [num_channels, -1]))
    floors = [tf.floor(along) for along in positions]
    weights = [
        _WEIGHTS[method](along - low)
        for along, low in zip(positions, floors, strict=True)
    ]
    base = _flat_index(floors, size)
    taps = _TAPS[method]
    strides = (size[1] * size[2], size[2], 1)
    interpolated = []
    for values in flat:
        total = 0.0
        # Rows along x are summed first, then planes: fewest products.
        for z, y in itertools.product(range(2 * taps), repeat=2):
            row = 0.0
            for x in range(2 * taps):
                steps = (z - taps + 1, y - taps + 1, x - taps + 1)
                index = base + sum(map(math.prod, zip(steps, strides, strict=True)))
                row += weights[2][x] * tf.cast(tf.gather(values, index), tf.float32)
            total += weights[0][z] * weights[1][y] * row
        interpolated.append(total)
    return tf.stack(interpolated, axis=-1)


def interpolate_labels(labels: tf.Tensor, positions: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the label of the nearest voxel; halfway, that of the higher one."""
    nearest = [tf.floor(along + 0.5) for along in positions]
    index = _flat_index(nearest, labels.shape.as_list())
    return tf.gather(tf.reshape(labels, [-1]), index)


def _flat_index(floors: Sequence[tf.Tensor], size: Sequence[int]) -> tf.Tensor:
    z, y, x = (tf.cast(along, tf.int32) for along in floors)
    return (z * size[1] + y) * size[2] + x
