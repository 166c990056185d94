"""Batches of a run, and checks of their records."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from u2net_tf.config.data import DataConfig
from u2net_tf.input.pipeline import training_dataset
from u2net_tf.input.share import Share
from u2net_tf.plan.domains import Plan
from u2net_tf.shards.reading import translate_tf_errors
from u2net_tf.training.run_shards import RunShards
from u2net_tf.training.strategy import gpu_of, workers_of

# "image", "labels" and "case" -> tensor, or one tensor per replica.
Batch: TypeAlias = dict[str, Any]


class TrainingBatches:
    """Iterates over the batches of a run, from all domains in turn.

    Args:
      plan: plan of the trained domains.
      shards: shards of the domains of the run.
      data: settings of the input pipeline.
      strategy: distribution strategy; batches are split over its replicas, of which
        those of this worker are returned.
      first_step: number of batches to skip.
      device: device to which images and labels are copied as soon as they are read,
        while earlier steps may still be running there; that of `gpu_of` if None.

    Raises:
      InputError: if there are no training cases, a shard is missing or the augmentation
        is impossible.
    """

    def __init__(
        self,
        plan: Plan,
        shards: RunShards,
        data: DataConfig,
        strategy: tf.distribute.Strategy,
        *,
        first_step: int,
        device: str | None = None,
    ):
        self._device = device or gpu_of(strategy)
        self._shards = shards.trained
        self._strategy = strategy
        workers = workers_of(strategy)
        dataset = training_dataset(
            plan.domains,
            shards.manifests,
            data,
            first_step=first_step,
            share=Share(workers.index, workers.count),
        )
        self._num_local_replicas = strategy.num_replicas_in_sync // workers.count
        self._iterator = iter(dataset)

    def read(self) -> Batch:
        """Returns the next batch.

        Raises:
          InputError: if a shard cannot be read or does not match its manifest.
        """
        with translate_tf_errors(self._shards):
            batch = next(self._iterator)
        if self._strategy.num_replicas_in_sync > 1:
            batch = self._split(batch)
        if self._device is None:
            # The step or the strategy copies tensors where necessary.
            return batch
        with tf.device(self._device):
            # Case names are strings and cannot be copied to a GPU.
            return {
                name: value if name == "case" else tf.identity(value)
                for name, value in batch.items()
            }

    def check_voxels(self, batch: Batch, domain: int) -> None:
        """Checks the records of a batch if any of its voxels is not finite.

        Args:
          batch: patches, labels and the cases that they are from.
          domain: index of its domain in the plan.

        Raises:
          InputError: if a record is damaged; names the shard and the case.
        """
        images = self._strategy.experimental_local_results(batch["image"])
        if not all(np.isfinite(image.numpy()).all() for image in images):
            self._shards[domain].check(self.cases_of(batch))

    def cases_of(self, batch: Batch) -> list[str]:
        """Returns the names of the cases in a batch, sorted."""
        local = self._strategy.experimental_local_results(batch["case"])
        return sorted({case.decode() for part in local for case in part.numpy()})

    def _split(self, batch: dict[str, tf.Tensor]) -> Batch:
        """Returns a batch of this worker as one tensor per replica.

        The datasets of `tf.distribute` would do so, too, but end up to a minute later:
        autotuning, which cannot be turned off for them, has to finish first.
        """
        count = self._num_local_replicas
        parts = {name: tf.split(values, count) for name, values in batch.items()}

        def part(context: tf.distribute.experimental.ValueContext) -> Batch:
            index = context.replica_id_in_sync_group % count
            return {name: values[index] for name, values in parts.items()}

        return self._strategy.experimental_distribute_values_from_function(part)
