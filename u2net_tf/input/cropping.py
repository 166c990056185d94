"""Crops patches and boxes from a volume and pads what extends beyond it.

Images are padded with the minimum of each modality over the volume, which is air in
CT, and labels with background. A volume smaller than a patch is padded on both sides,
with the odd voxel at the end. `inference.windows` does the same in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from u2net_tf.shards.records import Fields


def first_voxel(
    origin: tf.Tensor, shape: tf.Tensor, patch_size: Sequence[int]
) -> tf.Tensor:
    """Returns the first voxel of a patch, negative if the patch begins with padding.

    Args:
      origin: (3,) int32 first voxel of the volume that is in the patch.
      shape: (3,) int32 shape of the volume.
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
      The (*patch_size, C) image and the (*patch_size) labels, static in z, y, x, of
      unchanged types.
    """
    image, labels = fields["image"], fields["labels"]
    shape = tf.shape(labels)

    def crop_inside() -> tuple[tf.Tensor, tf.Tensor]:
        # Most patches need no padding, and nothing is as fast as a slice.
        num_channels = tf.shape(image)[3:]
        return (
            tf.slice(
                image,
                tf.concat([origin, [0]], 0),
                tf.concat([patch_size, num_channels], 0),
            ),
            tf.slice(labels, origin, patch_size),
        )

    def crop_padded() -> tuple[tf.Tensor, tf.Tensor]:
        first = first_voxel(origin, shape, patch_size)
        box = _clip_box(first, patch_size, shape, 0)
        channels, patch_labels = _pad(fields, box, _padding_values(image))
        return tf.stack(channels, axis=-1), patch_labels

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
    """Crops a box that may be partly or completely outside the volume.

    Args:
      fields: a record, as `records.parse` returns it; the number of modalities static.
      first: (3,) int32 first voxel, may be negative.
      box_size: z, y, x.
      unused_margin: (3,) int32 voxels at either end of each axis that are not needed
        and have undefined values.

    Returns:
      The (C, *box_size) image and the (*box_size) labels, of unchanged types.
    """
    image = fields["image"]
    shape = tf.shape(fields["labels"])
    box = _clip_box(first, box_size, shape, unused_margin)
    exceeds_volume = tf.reduce_any(
        (first + unused_margin < 0) | (first + box_size - unused_margin > shape)
    )
    padding_values = tf.cond(
        exceeds_volume,
        lambda: _padding_values(image),
        lambda: tf.zeros(tf.shape(image)[3:], image.dtype),
    )
    channels, labels = _pad(fields, box, padding_values)
    return (
        tf.ensure_shape(tf.stack(channels), [image.shape[3], *box_size]),
        tf.ensure_shape(labels, box_size),
    )


class _Box(NamedTuple):
    """The part of a box inside the volume, and the padding around it.

    Attributes:
      start: (3,) int32 first voxel of that part.
      shape: (3,) int32 shape of that part.
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
    # A box outside the volume is all padding.
    paddings = tf.clip_by_value(paddings, 0, tf.constant(size)[:, None])
    return _Box(low, high - low, paddings)


def _padding_values(image: tf.Tensor) -> tf.Tensor:
    """Returns the padding of an image: the minimum of each modality. (C,)."""
    return tf.reduce_min(image, axis=(0, 1, 2))


def _pad(
    fields: Fields, box: _Box, padding_values: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Crops and pads; returns a (z, y, x) image per modality, and the labels."""
    image, labels = fields["image"], fields["labels"]
    part = tf.slice(
        image, tf.concat([box.start, [0]], 0), tf.concat([box.shape, [-1]], 0)
    )
    channels = [
        tf.pad(part[..., index], box.paddings, constant_values=padding_values[index])
        for index in range(image.shape[3])
    ]
    return channels, tf.pad(tf.slice(labels, box.start, box.shape), box.paddings)
