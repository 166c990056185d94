"""From shards to batches: a chain of datasets per domain, then round robin.

Batch n comes from domain n mod T. All random values are functions of (seed, domain,
number of the patch), so the batches from step n on are the same whether or not a run
was interrupted before. They also depend on the buffer sizes, and so on the memory and
the number of domains that share it, except in a domain whose records all fit into the
shuffle buffer and yield one patch each.

No function here has control flow that depends on a tensor. They are excluded from
AutoGraph, which would analyse the source of everything they call and take longer than
tracing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from u2net_tf.config.data import DataConfig
from u2net_tf.errors import InputError
from u2net_tf.input import buffers, sampling
from u2net_tf.input.interleaving import Interleaving
from u2net_tf.input.patch_transform import make_patch_transform
from u2net_tf.input.position import Position
from u2net_tf.input.share import ENTIRE, Share
from u2net_tf.plan.domains import Domain
from u2net_tf.shards import reading
from u2net_tf.shards.manifest import Manifest
from u2net_tf.shards.records import Fields


def domain_dataset(
    domain: Domain,
    manifest: Manifest,
    settings: DataConfig,
    *,
    first_batch: int = 0,
    num_domains: int = 1,
    share: Share = ENTIRE,
) -> tf.data.Dataset:
    """Returns an infinite dataset of batches of one domain.

    Args:
      domain: provides patch size, batch size and mirror axes.
      manifest: manifest of its shards.
      settings: see `DataConfig`.
      first_batch: number of batches of this domain to skip when a run is resumed.
      num_domains: number of domains that share the memory.
      share: the part of each batch to return.

    Returns:
      Batches {"image": (B, z, y, x, C) float32, "labels": (B, z, y, x) uint8,
      "case": (B,) string}, where B is the batch size divided by `share.count`.

    Raises:
      InputError: if the domain has no training cases.
    """
    if not manifest.entries(domain.train):
        raise InputError(
            f"{settings.data_dir}/{domain.name}",
            expected="training cases",
            received="none",
        )
    batch_size = settings.batch_size or domain.batch_size
    sizes = _allocate_buffers(domain, manifest, settings, num_domains)
    position = Position.of_patch(
        first_batch * batch_size,
        num_records=len(manifest.entries(domain.train)),
        patches_per_volume=sizes.patches_per_volume,
        num_interleaved_volumes=sizes.num_interleaved_volumes,
    )
    interleaving = Interleaving(
        _key(domain, settings), sizes.patches_per_volume, sizes.num_interleaved_volumes
    )
    shards = reading.CaseShards(settings.data_dir, domain, manifest, domain.train)
    read_epoch = _make_epoch_reader(
        shards, _key(domain, settings), sizes.shuffled_records, position
    )
    parse_record = _make_parser(shards)
    # If the records of a shard are not shuffled, a case may have the same index in all
    # batches. Its patches would then all be drawn around foreground, or none of them.
    permuted = sizes.shuffled_records == 1 and len(shards.paths) < len(shards.entries)
    crop = _make_cropper(domain, settings, batch_size, share, permuted=permuted)

    dataset = tf.data.Dataset.range(position.epoch, tf.int64.max)
    # Shuffled within an epoch, so that every case comes once before any comes twice;
    # records used before an interruption are skipped without being parsed.
    dataset = dataset.flat_map(read_epoch)
    # The number of a read determines those of its patches, and so all random values.
    dataset = dataset.enumerate(position.record_read)
    # Parsed once, however many patches a record yields.
    dataset = dataset.map(parse_record, **_in_parallel(sizes.parallel_reads))
    # From here on, an element is a patch: its number and its record.
    dataset = dataset.flat_map(interleaving.numbered)
    # Cropped, augmented and resized in parallel; the order of elements is kept.
    dataset = dataset.map(crop, **_in_parallel(sizes.parallel_crops))
    # Interleaved, so that a batch does not consist of patches of a single volume.
    dataset = interleaving.in_order(dataset, position.record_read)
    # Skips patches of the window that were used before an interruption.
    dataset = dataset.skip(position.patches_before)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    dataset = share.of_batches(dataset, batch_size)
    # Nothing is read ahead beyond the buffers.
    return dataset.with_options(_options())


def _key(domain: Domain, settings: DataConfig) -> int:
    """Returns the first number of all seeds, which identifies the domain.

    It depends on the name, not on the index, so that other domains have no effect,
    except through their number on the buffer sizes.
    """
    return (settings.seed << 32) + zlib.crc32(domain.name.encode())


def _in_parallel(calls: int | None) -> dict[str, Any]:
    """Returns arguments of `map` that keep the order; None is sequential, on demand."""
    return {
        "num_parallel_calls": calls,
        "deterministic": None if calls is None else True,
    }


def _allocate_buffers(
    domain: Domain, manifest: Manifest, settings: DataConfig, num_domains: int
) -> buffers.Buffers:
    return buffers.allocate_buffers(
        manifest,
        buffers.patch_bytes(domain, settings.patch_size or domain.patch_size),
        cases=domain.train,
        memory_mb=settings.input_memory_mb,
        num_domains=num_domains,
        patches_per_volume=settings.patches_per_volume or None,
        parallel_crops=settings.num_parallel_calls or None,
    )


def _make_epoch_reader(
    shards: reading.CaseShards, key: int, shuffled_records: int, position: Position
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """Returns the function from an epoch to its numbered, serialized records."""

    @tf.autograph.experimental.do_not_convert
    def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        # `shuffle` mixes in the seed of the graph, which is that of this function.
        # Otherwise it would be the global seed, and the order would depend on it.
        tf.random.set_seed(1)
        seeds = tf.random.split(tf.stack([tf.constant(key, tf.int64), epoch]), 2)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(shards.paths)), seeds[0]
        )
        before = tf.constant(position.records_before, tf.int64)
        skip = tf.where(epoch == position.epoch, before, 0)
        if shuffled_records == 1:
            # Without shuffling, skipped records need not even be read.
            return shards.records(order, skip=skip)
        records = shards.records(order).shuffle(
            shuffled_records, seeds[1, 0], reshuffle_each_iteration=False
        )
        return records.skip(skip)

    return read_epoch


def _make_parser(
    shards: reading.CaseShards,
) -> Callable[..., tuple[tf.Tensor, Fields]]:
    """Returns the function that parses the serialized record of a read."""

    @tf.autograph.experimental.do_not_convert
    def parse_record(
        record_read: tf.Tensor, numbered: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, Fields]:
        # Volumes are large, so they are converted to float32 only after cropping.
        return record_read, shards.parse(*numbered)

    return parse_record


def _make_cropper(
    domain: Domain,
    settings: DataConfig,
    batch_size: int,
    share: Share,
    *,
    permuted: bool,
) -> Callable[[tf.Tensor, Fields], Fields]:
    """Returns the function that makes a patch from its number and its record.

    If `permuted`, which patches of a batch are always drawn around foreground is random
    instead of the first ones.
    """
    key = _key(domain, settings)
    patch_size = settings.patch_size or domain.patch_size
    transform = make_patch_transform(
        domain,
        patch_size,
        method=settings.resize_method,
        augmentation=settings.augmentation,
    )

    @tf.autograph.experimental.do_not_convert
    def crop(number: tf.Tensor, fields: Fields) -> Fields:
        seed = tf.stack([tf.constant(key, tf.int64), number])
        origin_seed, mirroring_seed = tf.unstack(tf.random.split(seed, 2))
        index_in_batch = number % batch_size
        if permuted:
            index_in_batch = sampling.permute_in_batch(number, batch_size, key)
        origin = sampling.draw_patch_origin(
            fields,
            domain.patch_size,
            index_in_batch,
            batch_size,
            settings.sampling,
            origin_seed,
            partly_annotated=domain.ignore_label is not None,
        )
        image, labels = transform(fields, origin, mirroring_seed, seed)
        return {"image": image, "labels": labels, "case": fields["case"]}

    return share.of_crops(crop, batch_size, patch_size)


def training_dataset(
    domains: Sequence[Domain],
    manifests: Sequence[Manifest],
    settings: DataConfig,
    *,
    first_step: int = 0,
    share: Share = ENTIRE,
) -> tf.data.Dataset:
    """Returns an infinite dataset of batches; batch n is from domain n mod T.

    Args:
      domains: the domains, in the order of their indices.
      manifests: manifests of their shards, in the same order.
      settings: see `DataConfig`.
      first_step: the first n.
      share: the part of each batch to return.

    Returns:
      Batches as `domain_dataset` returns them, starting with batch `first_step`. The
      number of modalities is unknown to the dataset if the domains differ in it.
    """
    total = len(domains)
    datasets = [
        domain_dataset(
            domain,
            manifest,
            settings,
            first_batch=(first_step - index + total - 1) // total,
            num_domains=total,
            share=share,
        )
        for index, (domain, manifest) in enumerate(zip(domains, manifests, strict=True))
    ]
    turns = tf.data.Dataset.range(first_step, tf.int64.max).map(
        tf.autograph.experimental.do_not_convert(lambda n: n % total)
    )
    joint = tf.data.Dataset.choose_from_datasets(
        datasets, turns, stop_on_empty_dataset=True
    )
    largest = max(
        (settings.batch_size or domain.batch_size)
        * buffers.patch_bytes(domain, settings.patch_size or domain.patch_size)
        for domain in domains
    )
    return joint.prefetch(
        buffers.num_prefetched_batches(largest, memory_mb=settings.input_memory_mb)
    )


def _options() -> tf.data.Options:
    """Returns options that keep tf.data from adding parallelism or prefetching."""
    options = tf.data.Options()
    options.autotune.enabled = False
    optimization = options.experimental_optimization
    optimization.map_parallelization = False
    optimization.parallel_batch = False
    optimization.inject_prefetch = False
    return options
