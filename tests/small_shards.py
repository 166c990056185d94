"""Shards of two domains with a few small cases of random content."""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from u2net_tf import files
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.shards import manifest, records

DOMAIN = Domain(
    name="Task90_Organ",
    raw_dir="raw",
    modalities=("T2", "ADC"),
    labels=(Label("background", (0,)), Label("organ", (1,))),
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(4, 5, 6),
    patch_size=(4, 4, 4),
    pools=(1, 1, 1),
    batch_size=1,
    train=("a", "b", "c"),
    test=("d",),
)
OTHER = dataclasses.replace(DOMAIN, name="Task91_Other")
TRAIN = "train-00000-of-00001.tfrecord"
TEST = "test-00000-of-00001.tfrecord"


def make_record(domain, case):
    generator = np.random.default_rng(ord(case))
    labels = generator.integers(0, 2, (4, 5, 6), dtype=np.uint8)
    coordinates, counts = records.sample_coordinates(labels, 2, per_class=9, seed=0)
    return records.Record(
        domain=domain.name,
        case=case,
        image=generator.normal(size=(4, 5, 6, 2)).astype(np.float16),
        labels=labels,
        label_counts=np.bincount(labels.ravel()),
        coordinates=coordinates,
        coordinate_counts=counts,
    )


def make_entry(record, group, shard):
    serialized = records.encode(record)
    return manifest.CaseEntry(
        case=record.case,
        group=group,
        shard=shard,
        files=["image", "label"],
        raw_shape=[4, 5, 6],
        raw_spacing_mm=[1, 1, 1],
        raw_orientation="RAS",
        raw_affine=np.eye(4).tolist(),
        crop_start=[0, 0, 0],
        crop_shape=[4, 5, 6],
        shape=[4, 5, 6],
        spacing_mm=[1, 1, 1],
        label_voxels=record.label_counts.tolist(),
        num_bytes=len(serialized),
        checksum=hashlib.sha256(serialized).hexdigest(),
    )


def write_domain(data_dir, domain, compression):
    folder = data_dir / domain.name
    folder.mkdir(parents=True)
    kind = records.COMPRESSION_TYPES[compression]
    entries = []
    for split, shard in (("train", TRAIN), ("test", TEST)):
        with tf.io.TFRecordWriter(str(folder / shard), kind) as writer:
            for case in domain.cases(split):
                record = make_record(domain, case)
                writer.write(records.encode(record))
                entries.append(make_entry(record, split, shard))
    made = manifest.Manifest(
        domain=domain.name,
        plan_hash=plan_hash(domain),
        image_dtype="float16",
        compression=compression,
        cases=tuple(entries),
        skipped={},
    )
    write_manifest(data_dir, made)


def write_manifest(data_dir, made):
    path = manifest.manifest_path(data_dir, made.domain)
    files.write_text(path, manifest.to_json(made))


def write_data(data_dir, compression):
    for domain in (DOMAIN, OTHER):
        write_domain(data_dir, domain, compression)
    files.write_text(data_dir / "plan.json", plan_to_json(Plan((DOMAIN, OTHER))))
    return data_dir
