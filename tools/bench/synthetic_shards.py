"""A shard of synthetic volumes for benchmarks that read shards."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from u2net_tf.plan.domains import Domain
    from u2net_tf.shards.manifest import Manifest

NUM_CASES = 4


def write_shards(
    data_dir: pathlib.Path,
    shape: Sequence[int],
    patch_edge: int,
    *,
    name: str = "Task00_Bench",
) -> tuple[Domain, Manifest]:
    """Writes a shard of synthetic volumes (z, y, x) with voxels of 1 mm.

    Returns:
        The domain and its manifest.
    """
    import tensorflow as tf

    from u2net_tf.plan.domains import Domain
    from u2net_tf.plan.labels import Label
    from u2net_tf.plan.plan_hash import plan_hash
    from u2net_tf.shards import manifest, records

    shape = tuple(shape)
    domain = Domain(
        name=name,
        raw_dir="none",
        modalities=("CT",),
        labels=(Label("background", (0,)), Label("organ", (1,))),
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=shape,
        patch_size=(patch_edge,) * 3,
        # No network is built for them, so that the patch size is arbitrary.
        pools=(0, 0, 0),
        batch_size=1,
        train=tuple(f"case_{number}" for number in range(NUM_CASES)),
    )
    shard = "train-00000-of-00001.tfrecord"
    (data_dir / domain.name).mkdir(parents=True)
    entries = []
    with tf.io.TFRecordWriter(str(data_dir / domain.name / shard)) as writer:
        for number, case in enumerate(domain.train):
            image, labels = draw_volume(shape, number)
            coordinates, counts = records.sample_coordinates(
                labels, 2, per_class=1000, seed=number
            )
            label_counts = records.count_labels(labels, 2)
            serialized = records.encode(
                records.Record(
                    domain=domain.name,
                    case=case,
                    image=image.astype(np.float16)[..., np.newaxis],
                    labels=labels,
                    label_counts=label_counts,
                    coordinates=coordinates,
                    coordinate_counts=counts,
                )
            )
            writer.write(serialized)
            entries.append(
                manifest.CaseEntry(
                    case=case,
                    group="train",
                    shard=shard,
                    files=[],
                    raw_shape=list(shape),
                    raw_spacing_mm=[1.0] * 3,
                    raw_orientation="RAS",
                    raw_affine=np.eye(4).tolist(),
                    crop_start=[0, 0, 0],
                    crop_shape=list(shape),
                    shape=list(shape),
                    spacing_mm=[1.0] * 3,
                    label_voxels=label_counts.tolist(),
                    num_bytes=len(serialized),
                    checksum="unknown",
                )
            )
    return domain, manifest.Manifest(
        domain=domain.name,
        plan_hash=plan_hash(domain),
        image_dtype="float16",
        compression="none",
        cases=tuple(entries),
        skipped={},
    )


def draw_volume(shape: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a noisy ball: (z, y, x) float32 image and uint8 labels."""
    positions = (np.linspace(-1, 1, size, dtype=np.float32) for size in shape)
    axes = np.meshgrid(*positions, indexing="ij", sparse=True)
    labels = (sum(axis**2 for axis in axes) < 0.25).astype(np.uint8)
    image = np.random.default_rng(seed).standard_normal(tuple(shape), np.float32)
    image *= 0.3
    image += labels
    return image, labels
