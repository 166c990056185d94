"""Cropping of a volume, padded where the crop leaves it.

Beyond the volume lies each modality's minimum over it, which for a CT is air, and
background. A volume smaller than a patch is padded on both sides, by the odd voxel
more at the end. The sliding window of `inference.windows` does the same in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from u2net_tf.shards.records import Fields


def first_voxel(
    origin: tf.Tensor, shape: tf.Tensor, patch_size: Sequence[int]
) -> tf.Tensor:
    """The first voxel of a patch, negative where the patch begins with padding.

    Args:
      origin: (3,) int32 first voxel of the volume that is in the patch.
      shape: (3,) int32 of the volume.
      patch_size: z, y, x.
    """
    return origin - tf.maximum(tf.constant(patch_size) - shape, 0) // 2


def crop_patch(
    fields: Fields, origin: tf.Tensor, patch_size: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Crops a patch.

    Args:
      fields: a record, as `records.parse` returns it; the image of any float type.
      origin: (3,) int32 first voxel, 0 along axes on which the volume is smaller.
      patch_size: z, y, x.

    Returns:
      (*patch_size, C) image of the type it came in and (*patch_size) labels, static in
      z, y, x.
    """
    image, labels = fields["image"], fields["labels"]
    shape = tf.shape(labels)

    def crop_inside() -> tuple[tf.Tensor, tf.Tensor]:
        # Most patches need no padding, and nothing is as fast as a slice.
        channels = tf.shape(image)[3:]
        return (
            tf.slice(
                image,
                tf.concat([origin, [0]], 0),
                tf.concat([patch_size, channels], 0),
            ),
            tf.slice(labels, origin, patch_size),
        )

    def crop_padded() -> tuple[tf.Tensor, tf.Tensor]:
        first = first_voxel(origin, shape, patch_size)
        box = _clip_box(first, patch_size, shape, 0)
        planes, patch_labels = _pad(fields, box, _lowest(image))
        return tf.stack(planes, axis=-1), patch_labels

    patch, patch_labels = tf.cond(
        tf.reduce_all(shape >= tf.constant(patch_size)), crop_inside, crop_padded
    )
    return (
        tf.ensure_shape(patch, [*patch_size, image.shape[3]]),
        tf.ensure_shape(patch_labels, patch_size),
    )


def crop_box(
    fields: Fields,
    first: tf.Tensor,
    box_size: Sequence[int],
    unused_margin: tf.Tensor | int = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Crops a box that may lie partly, or wholly, outside of the volume.

    Args:
      fields: a record, as `records.parse` returns it; the number of modalities static.
      first: (3,) int32 first voxel, may be negative.
      box_size: z, y, x.
      unused_margin: (3,) int32 voxels at either end of each axis that are not needed:
        what they hold is undefined.

    Returns:
      (C, *box_size) image and (*box_size) labels of the types they came in.
    """
    image = fields["image"]
    shape = tf.shape(fields["labels"])
    box = _clip_box(first, box_size, shape, unused_margin)
    leaves = tf.reduce_any(
        (first + unused_margin < 0) | (first + box_size - unused_margin > shape)
    )
    lowest = tf.cond(
        leaves,
        lambda: _lowest(image),
        lambda: tf.zeros(tf.shape(image)[3:], image.dtype),
    )
    planes, labels = _pad(fields, box, lowest)
    return (
        tf.ensure_shape(tf.stack(planes), [image.shape[3], *box_size]),
        tf.ensure_shape(labels, box_size),
    )


class _Box(NamedTuple):
    """The part of a box that lies in the volume, and what does not.

    Attributes:
      start: (3,) int32 first voxel of that part.
      shape: (3,) int32 of that part.
      paddings: (3, 2) int32 voxels before and after it.
    """

    start: tf.Tensor
    shape: tf.Tensor
    paddings: tf.Tensor


def _clip_box(
    first: tf.Tensor,
    size: Sequence[int],
    shape: tf.Tensor,
    unused_margin: tf.Tensor | int,
) -> _Box:
    low = tf.clip_by_value(first + unused_margin, 0, shape)
    high = tf.clip_by_value(first + size - unused_margin, low, shape)
    paddings = tf.stack([low - first, first + size - high], axis=1)
    # A box beside the volume holds nothing of it, and all of it is padding.
    paddings = tf.clip_by_value(paddings, 0, tf.constant(size)[:, None])
    return _Box(low, high - low, paddings)


def _lowest(image: tf.Tensor) -> tf.Tensor:
    """What an image is padded with: each modality's minimum. (C,)."""
    return tf.reduce_min(image, axis=(0, 1, 2))


def _pad(
    fields: Fields, box: _Box, lowest: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """A plane for each modality, and labels, cropped and padded."""
    image, labels = fields["image"], fields["labels"]
    part = tf.slice(
        image, tf.concat([box.start, [0]], 0), tf.concat([box.shape, [-1]], 0)
    )
    planes = [
        tf.pad(part[..., channel], box.paddings, constant_values=lowest[channel])
        for channel in range(image.shape[3])
    ]
    return planes, tf.pad(tf.slice(labels, box.start, box.shape), box.paddings)
