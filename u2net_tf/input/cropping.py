"""Patches of a record: where they lie is drawn, cutting and mirroring are not.

Everything random is a function of the seed handed in, so a run can be resumed at any
step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from u2net_tf.config.data import SamplingConfig
from u2net_tf.networks.ops.resizing import resize_image, resize_labels
from u2net_tf.plan.domains import AXES

Fields = Mapping[str, tf.Tensor]


def draw_start(
    fields: Fields,
    patch_size: Sequence[int],
    slot: tf.Tensor,
    batch_size: int,
    sampling: SamplingConfig,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Draws the first voxel of a patch.

    A patch drawn around a voxel has it at its centre, moved where it would leave the
    volume. Along an axis shorter than the patch the start is 0.

    Args:
      fields: a record, as `records.parse` returns it.
      patch_size: z, y, x.
      slot: scalar, position of the patch in its batch.
      batch_size: patches per batch.
      sampling: the shares.
      seed: (2,) integers.

    Returns:
      (3,) int32.
    """
    seeds = tf.unstack(tf.random.split(seed, 3))
    shape = tf.shape(fields["labels"])
    room = tf.maximum(shape - tf.constant(patch_size, tf.int32), 0)
    share = tf.random.stateless_uniform([3], seeds[0])
    anywhere = tf.cast(share * tf.cast(room + 1, tf.float32), tf.int32)
    # Rounding can carry a share just below 1 to 1.
    anywhere = tf.minimum(anywhere, room)
    kind = tf.random.stateless_uniform([], seeds[1])
    certain = tf.cast(slot, tf.int32) < sampling.num_certain(batch_size)
    smallest = ~certain & (kind < sampling.smallest_share)
    around = certain | (kind < sampling.smallest_share + sampling.foreground_share)
    first, count = _choose_group(fields, smallest)

    def at_voxel() -> tf.Tensor:
        index = tf.random.stateless_uniform(
            [], seeds[2], minval=first, maxval=first + count, dtype=tf.int64
        )
        centre = fields["coordinates"][index] - tf.constant(patch_size, tf.int32) // 2
        return tf.clip_by_value(centre, 0, room)

    return tf.cond(around & (count > 0), at_voxel, lambda: anywhere)


def _choose_group(fields: Fields, smallest: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """First coordinate and number of those of the smallest class, or of all."""
    sizes = fields["coordinate_counts"]
    present = sizes > 0
    never = tf.int64.max
    index = tf.argmin(tf.where(present, fields["label_counts"], never))
    total = tf.reduce_sum(sizes)
    first = tf.cumsum(sizes, exclusive=True)[index]
    return (
        tf.where(smallest, first, tf.zeros_like(first)),
        tf.where(smallest, sizes[index], total),
    )


def cut_patch(
    fields: Fields, start: tf.Tensor, patch_size: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a patch; a volume smaller than the patch is padded on both sides.

    The padding of the image is each modality's minimum over the volume, which for a CT
    is air; the padding of the labels is background. `inference.windows` pads
    alike.

    Args:
      fields: a record, as `records.parse` returns it; the image of any float type.
      start: (3,) int32 first voxel.
      patch_size: z, y, x.

    Returns:
      (*patch_size, C) image of the type it came in and (*patch_size) labels, static in
      z, y, x.
    """
    image, labels = fields["image"], fields["labels"]
    wanted = tf.constant(patch_size, tf.int32)
    taken = tf.minimum(wanted, tf.shape(labels))
    channels = tf.shape(image)[3:]
    patch = tf.slice(image, tf.concat([start, [0]], 0), tf.concat([taken, channels], 0))
    labels_patch = tf.slice(labels, start, taken)
    before = (wanted - taken) // 2
    paddings = tf.stack([before, wanted - taken - before], axis=1)

    def pad_image() -> tf.Tensor:
        lowest = tf.reduce_min(image, axis=(0, 1, 2))
        inside = tf.pad(tf.ones(taken, tf.bool), paddings)[..., None]
        padded = tf.pad(patch, tf.concat([paddings, [[0, 0]]], 0))
        return tf.where(inside, padded, lowest)

    patch = tf.cond(tf.reduce_any(taken < wanted), pad_image, lambda: patch)
    labels_patch = tf.pad(labels_patch, paddings)
    patch.set_shape([*patch_size, image.shape[3]])
    labels_patch.set_shape(patch_size)
    return patch, labels_patch


def draw_mirroring(
    mirror_axes: Sequence[str], probability: float, seed: tf.Tensor
) -> tf.Tensor:
    """Draws which of the axes z, y, x to mirror. (3,) bool.

    Args:
      mirror_axes: the axes that may be mirrored.
      probability: of each.
      seed: (2,) integers.
    """
    allowed = tf.constant([axis in mirror_axes for axis in AXES])
    return allowed & (tf.random.stateless_uniform([3], seed) < probability)


def apply_mirroring(array: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Mirrors (z, y, x) or (z, y, x, C) along the axes where `mirrored` is true."""
    axes = tf.where(mirrored)[:, 0]
    return tf.cond(
        tf.reduce_any(mirrored), lambda: tf.reverse(array, axes), lambda: array
    )


def resize_patch(
    patch: tf.Tensor, labels: tf.Tensor, size: Sequence[int], *, method: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes one patch and its labels; see `resizing.resize_image`."""
    return (
        resize_image(patch[None], size, method=method)[0],
        resize_labels(labels[None], size)[0],
    )
