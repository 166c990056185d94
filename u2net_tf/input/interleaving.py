"""Interleaves several patches of each record read with those of other cases.

Reads of records are numbered through all epochs. The patches of W consecutive reads
form a window and are interleaved: round r consists of the r-th patch of each read, in
random order. Patches of one read are therefore about W apart; if an epoch ends within
a window, a case may be in it twice. The order is a function of (seed, domain, number)
and of the sizes of a window, so a resumed run with the same sizes parses only the
records of its current window again.

Excluded from AutoGraph, as `pipeline` is.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from u2net_tf.shards.records import Fields

# Distinguishes the seeds of windows from others with the same key.
_INTERLEAVING = 3


@dataclasses.dataclass(frozen=True)
class Interleaving:
    """The order of the patches of a domain.

    Attributes:
      key: combines seed and domain.
      patches_per_volume: patches of each read of a record.
      num_interleaved_volumes: reads whose patches form a window.
    """

    key: int
    patches_per_volume: int
    num_interleaved_volumes: int

    def patch_numbers(self, record_read: tf.Tensor) -> tf.Tensor:
        """Returns the numbers of the patches of one read of a record.

        Args:
          record_read: scalar int64, number of the read.

        Returns:
          (patches_per_volume,) int64, ascending.
        """
        width = self.num_interleaved_volumes
        return self._window_numbers(record_read // width)[record_read % width]

    @tf.autograph.experimental.do_not_convert
    def numbered(self, record_read: tf.Tensor, fields: Fields) -> tf.data.Dataset:
        """Returns (number, fields) of each patch of one read of a record."""
        numbers = tf.data.Dataset.from_tensor_slices(self.patch_numbers(record_read))
        # Repeats the tensors without copying them.
        repeated = tf.data.Dataset.from_tensors(fields).repeat(self.patches_per_volume)
        return tf.data.Dataset.zip((numbers, repeated))

    def in_order(
        self, patches: tf.data.Dataset, first_record_read: int
    ) -> tf.data.Dataset:
        """Sorts patches by their numbers.

        Args:
          patches: patches of consecutive reads, read by read.
          first_record_read: number of the first of these reads, which is the first of a
            window.
        """
        width = self.num_interleaved_volumes
        if width == 1:
            # The patches of one volume are in order.
            return patches
        windows = patches.batch(width * self.patches_per_volume, drop_remainder=True)
        # The next window is prepared while this one is consumed.
        windows = windows.prefetch(1).enumerate(first_record_read // width)
        return windows.flat_map(self._patches_of_window)

    @tf.autograph.experimental.do_not_convert
    def _patches_of_window(self, number: tf.Tensor, window: Fields) -> tf.data.Dataset:
        order = tf.argsort(tf.reshape(self._window_numbers(number), [-1]))
        return tf.data.Dataset.from_tensor_slices(order).map(
            lambda index: {name: values[index] for name, values in window.items()}
        )

    def _window_numbers(self, window: tf.Tensor) -> tf.Tensor:
        """Returns the patch numbers of a window. (reads, patches per read) int64."""
        per_volume, width = self.patches_per_volume, self.num_interleaved_volumes
        seed = tf.stack([tf.constant(self.key, tf.int64), window])
        seed = tf.random.fold_in(seed, _INTERLEAVING)
        # The position of each read in each round.
        positions = tf.argsort(tf.random.stateless_uniform([per_volume, width], seed))
        rounds = window * per_volume + tf.range(per_volume, dtype=tf.int64)
        return tf.transpose(rounds[:, None] * width + tf.cast(positions, tf.int64))
