"""One interpolation of a patch at any coordinates, compiled.

Compiled by XLA the coordinates, the weights and the reads of all neighbours are one
loop over the voxels, several times as fast as the same operations one by one. XLA wants
shapes that do not change, so a patch is read from a box of constant size.
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
from u2net_tf.input.augmentation.spatial import PatchGrid, Spatial
from u2net_tf.interpolation import kernels

# A patch that reads a larger box is refused: 1.5 GB of float16 and labels.
MAX_VOXELS = 2**29
# Neighbours on each side of a position along an axis, by method, and their weights at
# its fractional offset.
_TAPS = {"linear": 1, "cubic": 2}
_WEIGHTS = {"linear": kernels.linear_weights, "cubic": kernels.keys_cubic_weights}


class Warp:
    """Interpolates augmented patches of one shape.

    A patch is read from a box of its volume: `box_size` voxels from `box_start` on, of
    which `unused_margin` voxels at either end of each axis are never read. Whoever
    crops the box pads it where it leaves the volume.

    Args:
      grid: of the patch.
      augmentation: what may be drawn.
      method: "linear" or "cubic" (Keys 1981, a = -0.5) for images; labels take the
        nearest voxel.

    Attributes:
      box_size: z, y, x.

    Raises:
      InputError: if a patch may need more than `MAX_VOXELS` of its volume.
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
                f"at most {MAX_VOXELS}",
                received=f"{math.prod(self.box_size)}, a box of {self.box_size}",
            )
        # The centre of a patch of even size lies between two voxels.
        self._middle = [(size - 1) // 2 for size in grid.patch_size]
        self._interpolate = tf.function(
            self._interpolate_box, jit_compile=True, autograph=False
        )

    def box_start(self, first: tf.Tensor) -> tf.Tensor:
        """First voxel of the box of a patch whose first voxel this is. (3,) int32."""
        return first + tf.constant(self._middle) - tf.constant(self._half)

    def unused_margin(self, drawn: Spatial) -> tf.Tensor:
        """How much of the box is not read with what was drawn. (3,) int32."""
        extent = tf.math.ceil(spatial_module.needed_extent(self._grid, drawn) + 1e-3)
        half, taps = tf.constant(self._half), _TAPS[self._method]
        return tf.maximum(half - tf.cast(extent, tf.int32) - taps, 0)

    def __call__(
        self, planes: tf.Tensor, labels: tf.Tensor, drawn: Spatial
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Interpolates a patch.

        Args:
          planes: (C, *box_size) image of any float type, static.
          labels: (*box_size).
          drawn: what happens to the voxels.

        Returns:
          The (*size, C) float32 image and the (*size) labels.
        """
        return self._interpolate(planes, labels, drawn)

    def _interpolate_box(
        self, planes: tf.Tensor, labels: tf.Tensor, drawn: Spatial
    ) -> tuple[tf.Tensor, tf.Tensor]:
        centre = [
            half + (size - 1) / 2 - middle
            for half, size, middle in zip(
                self._half, self._grid.patch_size, self._middle, strict=True
            )
        ]
        coordinates = spatial_module.coordinates(self._grid, self._augmentation, drawn)
        places = [
            along + offset for along, offset in zip(coordinates, centre, strict=True)
        ]
        return (
            interpolate_image(planes, places, method=self._method),
            interpolate_labels(labels, places),
        )


def interpolate_image(
    planes: tf.Tensor, places: Sequence[tf.Tensor], *, method: str
) -> tf.Tensor:
    """Reads an image between its voxels.

    Args:
      planes: (C, z, y, x) of any float type, static.
      places: z, y and x of the wanted voxels, of shapes that broadcast; all neighbours
        must lie inside.
      method: "linear" or "cubic".

    Returns:
      float32, the places' shape and C last.
    """
    channels, *size = planes.shape.as_list()
    flat = tf.unstack(tf.reshape(planes, [channels, -1]))
    whole = [tf.floor(along) for along in places]
    weights = [
        _WEIGHTS[method](along - low) for along, low in zip(places, whole, strict=True)
    ]
    base = _flat_index(whole, size)
    taps = _TAPS[method]
    strides = (size[1] * size[2], size[2], 1)
    found = []
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
        found.append(total)
    return tf.stack(found, axis=-1)


def interpolate_labels(labels: tf.Tensor, places: Sequence[tf.Tensor]) -> tf.Tensor:
    """Takes the (z, y, x) label of the nearest voxel; halfway that of the higher."""
    nearest = [tf.floor(along + 0.5) for along in places]
    index = _flat_index(nearest, labels.shape.as_list())
    return tf.gather(tf.reshape(labels, [-1]), index)


def _flat_index(whole: Sequence[tf.Tensor], size: Sequence[int]) -> tf.Tensor:
    z, y, x = (tf.cast(along, tf.int32) for along in whole)
    return (z * size[1] + y) * size[2] + x
