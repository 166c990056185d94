"""Several patches of each record that is read, interleaved with those of other cases.

Reads of records are numbered through all epochs. The patches of W consecutive reads
form a window and are interleaved: round r holds the r-th patch of each of them, in an
order of its own. So patches of one read lie about W apart; where an epoch ends within a
window, a case may be in it twice. All of it is a function of (seed, domain, number),
and a run that is resumed parses no record again but those of the window that it is in.

Kept from AutoGraph, as `pipeline` is.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from u2net_tf.shards.records import Fields

# Kept apart from the other seeds made of the same key.
_INTERLEAVING = 3


@dataclasses.dataclass(frozen=True)
class Interleaving:
    """The order of the patches of a domain.

    Attributes:
      key: of seed and domain.
      patches_per_volume: patches of each read of a record.
      num_interleaved_volumes: reads whose patches form a window.
    """

    key: int
    patches_per_volume: int
    num_interleaved_volumes: int

    def patch_numbers(self, record_read: tf.Tensor) -> tf.Tensor:
        """Numbers of the patches of one read of a record.

        Args:
          record_read: scalar int64, number of the read.

        Returns:
          (patches_per_volume,) int64, ascending.
        """
        width = self.num_interleaved_volumes
        return self._window_numbers(record_read // width)[record_read % width]

    @tf.autograph.experimental.do_not_convert
    def numbered(self, record_read: tf.Tensor, fields: Fields) -> tf.data.Dataset:
        """(number, fields) of each patch of one read of a record."""
        numbers = tf.data.Dataset.from_tensor_slices(self.patch_numbers(record_read))
        # The same tensors again and again, not copies of them.
        same = tf.data.Dataset.from_tensors(fields).repeat(self.patches_per_volume)
        return tf.data.Dataset.zip((numbers, same))

    def in_order(
        self, patches: tf.data.Dataset, first_record_read: int
    ) -> tf.data.Dataset:
        """Puts patches in the order of their numbers.

        Args:
          patches: those of one read after the other.
          first_record_read: number of the first of these reads, the first of a window.
        """
        width = self.num_interleaved_volumes
        if width == 1:
            # Of one volume they are in order.
            return patches
        windows = patches.batch(width * self.patches_per_volume, drop_remainder=True)
        # The next window is made while this one is used.
        windows = windows.prefetch(1).enumerate(first_record_read // width)
        return windows.flat_map(self._patches_of_window)

    @tf.autograph.experimental.do_not_convert
    def _patches_of_window(self, number: tf.Tensor, window: Fields) -> tf.data.Dataset:
        order = tf.argsort(tf.reshape(self._window_numbers(number), [-1]))
        return tf.data.Dataset.from_tensor_slices(order).map(
            lambda index: {name: values[index] for name, values in window.items()}
        )

    def _window_numbers(self, window: tf.Tensor) -> tf.Tensor:
        """Numbers of the patches of a window. (reads, patches of each) int64."""
        per_volume, width = self.patches_per_volume, self.num_interleaved_volumes
        seed = tf.stack([tf.constant(self.key, tf.int64), window])
        seed = tf.random.fold_in(seed, _INTERLEAVING)
        # The place of each read in each round.
        places = tf.argsort(tf.random.stateless_uniform([per_volume, width], seed))
        rounds = window * per_volume + tf.range(per_volume, dtype=tf.int64)
        return tf.transpose(rounds[:, None] * width + tf.cast(places, tf.int64))
