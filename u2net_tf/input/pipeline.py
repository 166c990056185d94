"""From shards to batches: one visible chain per domain, then the round robin.

Batch n comes from domain n mod T. Everything random is a function of (seed, domain,
number of the patch), so the batches from step n on are the same whether or not a run
was interrupted before.
"""

from __future__ import annotations

import os
import pathlib
import zlib
from collections.abc import Collection, Sequence

import tensorflow as tf

from u2net_tf.config.data import DataConfig
from u2net_tf.errors import InputError
from u2net_tf.input import buffers, cropping, interleaving
from u2net_tf.input.patch_transform import make_cutter
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.manifest import Manifest
from u2net_tf.shards.records import COMPRESSION_TYPES, parse


def serialized_records(
    data_dir: str | os.PathLike, manifest: Manifest, cases: Collection[str]
) -> tf.data.Dataset:
    """The serialized records of some cases, in the order of the shards.

    Args:
      data_dir: folder that `data_prep.convert` wrote.
      manifest: of the domain's shards.
      cases: all cases of a group of the plan, or of several groups.

    Raises:
      InputError: if a shard is missing or also holds other cases.
    """
    return tf.data.TFRecordDataset(
        _shard_paths(data_dir, manifest, cases),
        COMPRESSION_TYPES[manifest.compression],
        # One megabyte: TensorFlow warns where it is left to choose.
        buffer_size=1 << 20,
    )


def domain_dataset(
    domain: Domain,
    manifest: Manifest,
    settings: DataConfig,
    *,
    first_batch: int = 0,
    num_domains: int = 1,
) -> tf.data.Dataset:
    """Endless batches of one domain.

    Args:
      domain: the domain.
      manifest: of its shards.
      settings: see `DataConfig`.
      first_batch: batches of this domain to pass over, for a run that is resumed.
      num_domains: domains that share the memory.

    Returns:
      Batches {"image": (B, z, y, x, C) float32, "labels": (B, z, y, x) uint8,
      "case": (B,) string}.

    Raises:
      InputError: if the domain has no training cases.
    """
    entries = manifest.entries(domain.train)
    if not entries:
        raise InputError(
            f"{settings.data_dir}/{domain.name}",
            expected="training cases",
            received="none",
        )
    batch_size = settings.batch_size or domain.batch_size
    size = settings.patch_size or domain.patch_size
    # The name's checksum, not its index: other domains change nothing (but the order,
    # through their share of the memory, where it does not hold this domain whole).
    key = (settings.seed << 32) + zlib.crc32(domain.name.encode())
    held = buffers.plan_buffers(
        manifest,
        buffers.patch_bytes(domain, size),
        cases=domain.train,
        memory_mb=settings.input_memory_mb,
        num_domains=num_domains,
        patches_per_volume=settings.patches_per_volume or None,
    )
    per_volume, mixed = held.patches_per_volume, held.mixed_volumes
    parallel_calls = settings.num_parallel_calls or held.parallel_calls
    first_patch = first_batch * batch_size
    # Visits, the readings of a record, are counted through all epochs.
    window, patches_before = divmod(first_patch, mixed * per_volume)
    first_visit = window * mixed
    first_epoch, position = divmod(first_visit, len(entries))
    paths = _shard_paths(settings.data_dir, manifest, domain.train)

    def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        # `shuffle` mixes in the seed of the graph, here of this function's own. Left to
        # itself that is the global seed, and the order would depend on it.
        tf.random.set_seed(1)
        seeds = tf.random.split(tf.stack([tf.constant(key, tf.int64), epoch]), 2)
        order = tf.random.experimental.stateless_shuffle(paths, seeds[0])
        records = tf.data.TFRecordDataset(
            order, COMPRESSION_TYPES[manifest.compression], buffer_size=1 << 20
        )
        if held.shuffled_records == 1:
            # Unshuffled, records that are passed over need not be read.
            return records
        return records.shuffle(
            held.shuffled_records, seeds[1, 0], reshuffle_each_iteration=False
        )

    cut = make_cutter(
        domain,
        size,
        method=settings.resize_method,
        mirror_probability=settings.sampling.mirror_probability,
        augmentation=settings.augmentation,
    )

    def read(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        # Converted to float32 only once it is cut: volumes are large.
        fields = parse(serialized, image_dtype=manifest.image_dtype)
        fields["image"] = tf.ensure_shape(
            fields["image"], [None, None, None, domain.num_modalities]
        )
        return fields

    def make_patch(number: tf.Tensor, fields: cropping.Fields) -> dict[str, tf.Tensor]:
        seed = tf.stack([tf.constant(key, tf.int64), number])
        where, mirror = tf.unstack(tf.random.split(seed, 2))
        start = cropping.draw_start(
            fields,
            domain.patch_size,
            number % batch_size,
            batch_size,
            settings.sampling,
            where,
        )
        image, labels = cut(fields, start, mirror, seed)
        return {"image": image, "labels": labels, "case": fields["case"]}

    dataset = tf.data.Dataset.range(first_epoch, tf.int64.max)
    # Shuffled within an epoch, so that every case comes once before any comes twice.
    dataset = dataset.flat_map(read_epoch)
    # Records that a run had before it was interrupted are passed over unparsed.
    dataset = dataset.skip(position)
    dataset = dataset.enumerate(first_visit)
    if per_volume == 1:
        dataset = dataset.map(
            lambda number, serialized: make_patch(number, read(serialized)),
            num_parallel_calls=parallel_calls,
            deterministic=None if parallel_calls is None else True,
        )
    else:
        dataset = interleaving.mixed_patches(
            dataset,
            read,
            make_patch,
            key=key,
            per_volume=per_volume,
            mixed=mixed,
            parallel_calls=parallel_calls,
        )
        dataset = dataset.skip(patches_before)
    return dataset.batch(batch_size, drop_remainder=True).with_options(_options())


def training_dataset(
    domains: Sequence[Domain],
    manifests: Sequence[Manifest],
    settings: DataConfig,
    *,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Endless batches of all domains in turn: batch n is from domain n mod T.

    Args:
      domains: in the order of their indices.
      manifests: of their shards, in the same order.
      settings: see `DataConfig`.
      first_step: the first n.

    Returns:
      Batches as `domain_dataset` gives them, starting with batch `first_step`. The
      number of modalities is unknown to the dataset where domains differ in it.
    """
    total = len(domains)
    datasets = [
        domain_dataset(
            domain,
            manifest,
            settings,
            first_batch=(first_step - index + total - 1) // total,
            num_domains=total,
        )
        for index, (domain, manifest) in enumerate(zip(domains, manifests, strict=True))
    ]
    turns = tf.data.Dataset.range(first_step, tf.int64.max).map(lambda n: n % total)
    joint = tf.data.Dataset.choose_from_datasets(
        datasets, turns, stop_on_empty_dataset=True
    )
    largest = max(
        (settings.batch_size or domain.batch_size)
        * buffers.patch_bytes(domain, settings.patch_size or domain.patch_size)
        for domain in domains
    )
    return joint.prefetch(
        buffers.num_ready_batches(largest, memory_mb=settings.input_memory_mb)
    )


def _options() -> tf.data.Options:
    """What runs ahead is what `memory` says; tf.data adds nothing of its own."""
    options = tf.data.Options()
    options.autotune.enabled = False
    optimization = options.experimental_optimization
    optimization.map_parallelization = False
    optimization.parallel_batch = False
    optimization.inject_prefetch = False
    return options


def _shard_paths(
    data_dir: str | os.PathLike, manifest: Manifest, cases: Collection[str]
) -> list[str]:
    folder = pathlib.Path(data_dir) / manifest.domain
    paths = [folder / name for name in manifest.shards(cases)]
    for path in paths:
        if not path.is_file():
            raise InputError(path, expected="a shard", received="no such file")
    return [str(path) for path in paths]
