"""Checks records against their manifest entries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.shards import records
from u2net_tf.shards.manifest import CaseEntry, ImageDtype
from u2net_tf.shards.records import Record


def check_record(
    serialized: bytes, entry: CaseEntry, domain: Domain, image_dtype: ImageDtype
) -> Record:
    """Checks a record completely: fields, voxels and checksum.

    Args:
      serialized: the record.
      entry: its manifest entry.
      domain: provides the modalities and classes that it may have.
      image_dtype: type of the images according to the manifest.

    Returns:
      The record.

    Raises:
      InputError: if the record does not match; names the case and the first difference.
    """
    try:
        stored = records.stored_image_dtype(serialized)
        record = records.decode(serialized)
    except (tf.errors.OpError, UnicodeDecodeError):
        raise InputError(
            entry.case, expected="a record", received="something else"
        ) from None
    if stored != image_dtype:
        raise InputError(
            entry.case, expected=f"voxels as {image_dtype}", received=stored
        )
    for expected, received in _differences(record, entry, domain):
        raise InputError(entry.case, expected=expected, received=received)
    if hashlib.sha256(serialized).hexdigest() != entry.checksum:
        raise InputError(
            entry.case,
            expected=f"checksum {entry.checksum}",
            received="a different one",
        )
    return record


def _differences(
    record: Record, entry: CaseEntry, domain: Domain
) -> Iterator[tuple[str, object]]:
    """Yields an expected and a received value for each difference."""
    if record.domain != domain.name:
        yield f"a record of {domain.name}", f"one of {record.domain}"
    if record.case != entry.case:
        yield "a record of this case", f"one of {record.case}"
    shape = (*entry.shape, domain.num_modalities)
    if record.image.shape != shape:
        yield f"shape {shape}", record.image.shape
    if not np.isfinite(record.image).all():
        yield "finite voxels", "NaN or infinity"
    num_indices = domain.num_label_indices
    counts = records.count_labels(record.labels, num_indices).tolist()
    if counts != entry.label_voxels:
        yield f"{entry.label_voxels} voxels per class", counts
    if len(counts) != num_indices:
        yield f"{num_indices} classes", len(counts)
    if record.label_counts.tolist() != counts:
        yield f"stored label counts {counts}", record.label_counts.tolist()
    if not _coordinates_match(record):
        yield "sampled coordinates within each class", "others"


def _coordinates_match(record: Record) -> bool:
    """Returns whether each sampled voxel belongs to its class."""
    counts, coordinates = record.coordinate_counts, record.coordinates
    if len(counts) != len(record.label_counts) or (counts < 0).any():
        return False
    if counts.sum() != len(coordinates) or (coordinates < 0).any():
        return False
    if (coordinates >= record.labels.shape).any():
        return False
    classes = np.repeat(np.arange(len(counts)), counts)
    return bool((record.labels[tuple(coordinates.T)] == classes).all())
