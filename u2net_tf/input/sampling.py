"""Draws the position of a patch in its volume, as a function of a seed."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.config.data import SamplingConfig
from u2net_tf.shards.records import Fields

# Distinguishes the seeds of batches from others with the same key.
_BATCH = 4


def permute_in_batch(number: tf.Tensor, batch_size: int, key: int) -> tf.Tensor:
    """Returns the index of a patch in a random permutation of its batch.

    Args:
      number: scalar int64, number of the patch.
      batch_size: patches per batch.
      key: combines seed and domain.

    Returns:
      Scalar int64, each of 0 to `batch_size` - 1 for one patch of a batch.
    """
    seed = tf.stack([tf.constant(key, tf.int64), number // batch_size])
    seed = tf.random.fold_in(seed, tf.constant(_BATCH, seed.dtype))
    indices = tf.range(batch_size, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(indices, seed)[number % batch_size]


def draw_patch_origin(
    fields: Fields,
    patch_size: Sequence[int],
    index_in_batch: tf.Tensor,
    batch_size: int,
    sampling: SamplingConfig,
    seed: tf.Tensor,
    *,
    partly_annotated: bool = False,
) -> tf.Tensor:
    """Draws the first voxel of a patch.

    A patch drawn around a voxel is centred on it and then shifted into the volume.
    Along axes on which the volume is smaller than the patch, the first voxel is 0.
    Patches that are not drawn around foreground are anywhere, or, in a domain with an
    ignore label, around annotated background.

    Args:
      fields: a record, as `records.parse` returns it.
      patch_size: z, y, x.
      index_in_batch: scalar, index of the patch in its batch or in a permutation of it;
        the first ones are always drawn around foreground.
      batch_size: patches per batch.
      sampling: fractions of patches to draw around foreground.
      seed: (2,) integers.
      partly_annotated: whether the domain has an ignore label.

    Returns:
      (3,) int32.
    """
    seeds = tf.unstack(tf.random.split(seed, 3))
    shape = tf.shape(fields["labels"])
    max_origin = tf.maximum(shape - tf.constant(patch_size, tf.int32), 0)
    fraction = tf.random.stateless_uniform([3], seeds[0])
    anywhere = tf.cast(fraction * tf.cast(max_origin + 1, tf.float32), tf.int32)
    # Rounding can raise a fraction just below 1 to 1.
    anywhere = tf.minimum(anywhere, max_origin)
    choice = tf.random.stateless_uniform([], seeds[1])
    always_foreground = tf.cast(
        index_in_batch, tf.int32
    ) < sampling.num_foreground_patches(batch_size)
    around_smallest = ~always_foreground & (choice < sampling.smallest_share)
    around_foreground = always_foreground | (
        choice < sampling.smallest_share + sampling.foreground_share
    )
    first, count = _choose_coordinates(fields, around_smallest)
    around_voxel = around_foreground & (count > 0)
    if partly_annotated:
        others = fields["coordinate_counts"][0]
        first = tf.where(around_voxel, first, 0)
        count = tf.where(around_voxel, count, tf.where(others > 0, others, count))
        around_voxel = count > 0

    def at_voxel() -> tf.Tensor:
        index = tf.random.stateless_uniform(
            [], seeds[2], minval=first, maxval=first + count, dtype=tf.int64
        )
        centre = fields["coordinates"][index] - tf.constant(patch_size, tf.int32) // 2
        return tf.clip_by_value(centre, 0, max_origin)

    return tf.cond(around_voxel, at_voxel, lambda: anywhere)


def _choose_coordinates(
    fields: Fields, around_smallest: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns start and number of the coordinates of foreground.

    They are those of the smallest class, or of all.
    """
    sizes = fields["coordinate_counts"]
    is_foreground = tf.range(tf.size(sizes)) > 0
    never = tf.int64.max
    counts = tf.where(is_foreground & (sizes > 0), fields["label_counts"], never)
    index = tf.argmin(counts)
    starts = tf.cumsum(sizes, exclusive=True)
    return (
        tf.where(around_smallest, starts[index], sizes[0]),
        tf.where(around_smallest, sizes[index], tf.reduce_sum(sizes[1:])),
    )
