"""The part of each batch that one of several workers trains on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.shards.records import Fields


@dataclasses.dataclass(frozen=True)
class Share:
    """A worker's patches: as many as those of each other worker, and consecutive.

    Attributes:
      index: index of the worker.
      count: number of workers; divides the batch size.
    """

    index: int = 0
    count: int = 1

    def of_batches(self, dataset: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Returns the worker's patches of each batch."""
        if self.count == 1:
            return dataset
        own = self._patches(batch_size)

        @tf.autograph.experimental.do_not_convert
        def take_own(batch: Fields) -> Fields:
            return {name: values[own] for name, values in batch.items()}

        return dataset.map(take_own)

    def of_crops(
        self,
        crop: Callable[[tf.Tensor, Fields], Fields],
        batch_size: int,
        patch_size: Sequence[int],
    ) -> Callable[[tf.Tensor, Fields], Fields]:
        """Returns a function like `crop` that does not crop patches of other workers.

        Args:
          crop: makes a patch from its number and its record.
          batch_size: number of patches in a batch.
          patch_size: z, y, x of the patches, which are zeros for other workers.
        """
        if self.count == 1:
            return crop
        own = self._patches(batch_size)

        def zeros(fields: Fields) -> Fields:
            shape = tf.concat([patch_size, tf.shape(fields["image"])[3:]], 0)
            return {
                "image": tf.zeros(shape),
                "labels": tf.zeros(patch_size, tf.uint8),
                "case": tf.constant(""),
            }

        @tf.autograph.experimental.do_not_convert
        def crop_own(number: tf.Tensor, fields: Fields) -> Fields:
            index = number % batch_size
            is_own = (own.start <= index) & (index < own.stop)
            return tf.cond(is_own, lambda: crop(number, fields), lambda: zeros(fields))

        return crop_own

    def _patches(self, batch_size: int) -> slice:
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)


ENTIRE = Share()
