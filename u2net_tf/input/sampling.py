"""Where in its volume a patch lies: drawn, a function of a seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.config.data import SamplingConfig
from u2net_tf.shards.records import Fields


def draw_patch_origin(
    fields: Fields,
    patch_size: Sequence[int],
    index_in_batch: tf.Tensor,
    batch_size: int,
    sampling: SamplingConfig,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Draws the first voxel of a patch.

    A patch drawn around a voxel has it at its centre, moved where it would leave the
    volume. Along an axis shorter than the patch the first voxel is 0.

    Args:
      fields: a record, as `records.parse` returns it.
      patch_size: z, y, x.
      index_in_batch: scalar, position of the patch in its batch.
      batch_size: patches per batch.
      sampling: how often patches are drawn around which voxels.
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
    certain = tf.cast(index_in_batch, tf.int32) < sampling.num_foreground_patches(
        batch_size
    )
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
    """First index and number of the coordinates of the smallest class, or of all."""
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
