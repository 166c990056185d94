"""One interpolation of a patch at any coordinates, compiled.

Compiled by XLA the coordinates, the weights and the reads of all neighbours are one
loop over the voxels, several times as fast as the same operations one by one. XLA wants
shapes that do not change, so a box of a constant size is cut from the volume first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.config.data import RESIZE_METHODS
from u2net_tf.errors import InputError
from u2net_tf.input.augmentation import spatial as spatial_module
from u2net_tf.input.augmentation.spatial import Grid, Spatial
from u2net_tf.networks.ops.resizing import cubic_weights

Fields = Mapping[str, tf.Tensor]

# A patch that reads a larger box is refused: 1.5 GB of float16 and labels.
MOST_VOXELS = 2**29
# Neighbours on each side of a position along an axis, by method.
_TAPS = {"linear": 1, "cubic": 2}


def make_warp(
    grid: Grid, augmentation: AugmentationConfig, method: str
) -> Callable[[Fields, tf.Tensor, Spatial], tuple[tf.Tensor, tf.Tensor]]:
    """The function that cuts an augmented patch from its volume.

    It takes a record as `records.parse` returns it, with an image of any float type,
    the patch's (3,) first voxel and what was drawn. It returns the (*size, C) float32
    image and the (*size) labels. Beyond the volume lies what `cropping.cut_patch` pads
    with: each modality's minimum and background.

    Args:
      grid: of the patch.
      augmentation: what may be drawn.
      method: "linear" or "cubic" (Keys 1981, a = -0.5) for images; labels take the
        nearest voxel.

    Raises:
      InputError: if a patch may need more than `MOST_VOXELS` of its volume.
    """
    if method not in RESIZE_METHODS:
        raise ValueError(
            f"method: expected one of {RESIZE_METHODS}. Received: {method!r}"
        )
    reach = np.ceil(spatial_module.largest_extent(grid, augmentation) + 1e-3)
    half = reach.astype(int) + _TAPS[method]
    # The centre of a patch of even size lies between two voxels.
    middle = [(size - 1) // 2 for size in grid.patch_size]
    box_size = [int(2 * extent + 2) for extent in half]
    if math.prod(box_size) > MOST_VOXELS:
        raise InputError(
            "`elastic_alpha`, `elastic_sigma_mm`, `scale`",
            expected=f"values with which a patch of {grid.patch_size} voxels reads at "
            f"most {MOST_VOXELS}",
            received=f"{math.prod(box_size)}, a box of {tuple(box_size)}",
        )
    centre = [
        extent + (size - 1) / 2 - whole
        for extent, size, whole in zip(half, grid.patch_size, middle, strict=True)
    ]

    @tf.function(jit_compile=True, autograph=False)
    def compiled(image_box, labels_box, drawn):
        places = [
            along + offset
            for along, offset in zip(
                spatial_module.coordinates(grid, augmentation, drawn),
                centre,
                strict=True,
            )
        ]
        return (
            interpolate_image(image_box, places, method=method),
            interpolate_labels(labels_box, places),
        )

    def warp(fields: Fields, start: tf.Tensor, drawn: Spatial):
        shape = tf.shape(fields["labels"])
        before = tf.maximum(tf.constant(grid.patch_size) - shape, 0) // 2
        first = start - before + tf.constant(middle) - tf.constant(half, tf.int32)
        # Only what this patch needs is read; the rest of the box is never looked at.
        extent = tf.cast(
            tf.math.ceil(spatial_module.needed_extent(grid, drawn) + 1e-3), tf.int32
        )
        spare = tf.maximum(tf.constant(half, tf.int32) - extent - _TAPS[method], 0)
        image_box, labels_box = cut_box(fields, first, box_size, spare)
        return compiled(image_box, labels_box, drawn)

    return warp


def cut_box(
    fields: Fields, first: tf.Tensor, box_size: Sequence[int], spare: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a box that may lie partly, or wholly, outside of the volume.

    Args:
      fields: a record, as `records.parse` returns it.
      first: (3,) int32 first voxel, may be negative.
      box_size: z, y, x.
      spare: (3,) int32, so many voxels at either end of each axis are not needed: what
        they hold is undefined.

    Returns:
      (C, *box_size) image and (*box_size) labels of the types they came in.
    """
    image, labels = fields["image"], fields["labels"]
    shape = tf.shape(labels)
    box = tf.constant(box_size, tf.int32)
    low = tf.clip_by_value(first + spare, 0, shape)
    high = tf.clip_by_value(first + box - spare, low, shape)
    paddings = tf.stack([low - first, first + box - high], axis=1)
    # A box beside the volume holds nothing of it, and all of it is padding.
    paddings = tf.clip_by_value(paddings, 0, box[:, None])
    part = tf.slice(image, tf.concat([low, [0]], 0), tf.concat([high - low, [-1]], 0))
    leaves = tf.reduce_any((first + spare < 0) | (first + box - spare > shape))
    lowest = tf.cond(
        leaves,
        lambda: tf.reduce_min(image, axis=(0, 1, 2)),
        lambda: tf.zeros(tf.shape(image)[3:], image.dtype),
    )
    planes = [
        tf.pad(part[..., channel], paddings, constant_values=lowest[channel])
        for channel in range(image.shape[3])
    ]
    labels = tf.pad(tf.slice(labels, low, high - low), paddings)
    return (
        tf.ensure_shape(tf.stack(planes), [image.shape[3], *box_size]),
        tf.ensure_shape(labels, box_size),
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
        _weights(along - low, method) for along, low in zip(places, whole, strict=True)
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


def _weights(share: tf.Tensor, method: str) -> list[tf.Tensor]:
    """Of the neighbours along one axis, for a share of the way between two voxels."""
    if method == "linear":
        return [1 - share, share]
    return cubic_weights(share)
