"""Encodes and parses records; each contains one preprocessed case.

Only this module depends on the feature keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from u2net_tf.shards.manifest import IMAGE_DTYPES

# Compression of `data_prep.convert` -> name in tf.data.
COMPRESSION_TYPES = {"none": "", "gzip": "GZIP"}

# A parsed record: name of a field of `Record` -> tensor.
Fields: TypeAlias = Mapping[str, tf.Tensor]

_FEATURES = {
    "domain": tf.io.FixedLenFeature([], tf.string),
    "case": tf.io.FixedLenFeature([], tf.string),
    "image": tf.io.FixedLenFeature([], tf.string),
    "image_dtype": tf.io.FixedLenFeature([], tf.string),
    "image_shape": tf.io.FixedLenFeature([4], tf.int64),
    "labels": tf.io.FixedLenFeature([], tf.string),
    "label_counts": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
    "coordinates": tf.io.FixedLenFeature([], tf.string),
    "coordinate_counts": tf.io.FixedLenSequenceFeature(
        [], tf.int64, allow_missing=True
    ),
}


@dataclasses.dataclass(frozen=True)
class Record:
    """One preprocessed case.

    Attributes:
      domain: name of the domain.
      case: name of the case.
      image: (z, y, x, C) float.
      labels: (z, y, x) uint8 class indices, or `Domain.ignore_index`.
      label_counts: number of voxels per class, and those without annotation if the
        domain has an ignore label; `Domain.num_label_indices` numbers.
      coordinates: (N, 3) int32 coordinates (z, y, x) of a random sample of voxels of
        each class, ordered by class.
      coordinate_counts: number of `coordinates` per class, of the same length as
        `label_counts`; the sum is N.
    """

    domain: str
    case: str
    image: np.ndarray
    labels: np.ndarray
    label_counts: np.ndarray
    coordinates: np.ndarray
    coordinate_counts: np.ndarray


def sample_coordinates(
    labels: np.ndarray,
    num_classes: int,
    *,
    per_class: int,
    seed: int,
    partly_annotated: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples voxels of every foreground class without replacement.

    The background is only sampled if the domain has an ignore label. Otherwise, patches
    that are not placed around foreground may be anywhere.

    Args:
      labels: (z, y, x) class indices.
      num_classes: number of classes, including the background.
      per_class: maximum number of voxels per class.
      seed: seed of the random sample.
      partly_annotated: whether the domain has an ignore label.

    Returns:
      `Record.coordinates` and `Record.coordinate_counts`.
    """
    generator = np.random.default_rng(seed)
    groups: list[np.ndarray] = [np.empty((0, 3), np.int32)]
    counts = [] if partly_annotated else [0]
    for index in range(len(counts), num_classes):
        flat = np.flatnonzero(labels == index)
        if flat.size > per_class:
            flat = np.sort(generator.choice(flat, per_class, replace=False))
        groups.append(np.stack(np.unravel_index(flat, labels.shape), axis=-1))
        counts.append(flat.size)
    counts += [0] * partly_annotated
    return np.concatenate(groups).astype(np.int32), np.array(counts, np.int64)


def count_labels(labels: np.ndarray, num_indices: int) -> np.ndarray:
    """Returns the number of voxels per index, int64, of (z, y, x) class indices.

    As with `numpy.bincount`, the result is longer if an index exceeds the last one.
    """
    length = max(num_indices, int(labels.max(initial=0)) + 1)
    # Plane by plane, since `bincount` converts its input to int64.
    counts = (np.bincount(plane.ravel(), minlength=length) for plane in labels)
    return sum(counts, np.zeros(length, np.int64))


def encode(record: Record) -> bytes:
    """Serializes a record deterministically.

    Raises:
      ValueError: if shapes, types or counts are inconsistent.
    """
    _check(record)
    example = tf.train.Example()
    # Filled in place, since passing messages to constructors copies them repeatedly.
    features = example.features.feature
    features["domain"].bytes_list.value.append(record.domain.encode())
    features["case"].bytes_list.value.append(record.case.encode())
    features["image_dtype"].bytes_list.value.append(str(record.image.dtype).encode())
    for key, array in (
        ("image", record.image),
        ("labels", record.labels),
        ("coordinates", record.coordinates.astype(np.int32)),
    ):
        features[key].bytes_list.value.append(_little_endian(array))
    for key, values in (
        ("image_shape", record.image.shape),
        ("label_counts", record.label_counts),
        ("coordinate_counts", record.coordinate_counts),
    ):
        # Sets the type of the list even if it is empty.
        features[key].int64_list.SetInParent()
        features[key].int64_list.value.extend(int(value) for value in values)
    return example.SerializeToString(deterministic=True)


def parse(
    serialized: tf.Tensor, *, image_dtype: str | None = None
) -> dict[str, tf.Tensor]:
    """Parses a record, in graph mode or eagerly.

    Args:
      serialized: scalar string.
      image_dtype: type in which the image is stored according to the manifest. The
        image keeps this type, so that only the patches that are used are converted.

    Returns:
      The fields of `Record` as tensors; the image is (z, y, x, C), float32 if
      `image_dtype` is None.

    Raises:
      tf.errors.InvalidArgumentError: if it is not a record, or its image is stored in
        a type other than `image_dtype`.
    """
    fields = tf.io.parse_single_example(serialized, _FEATURES)
    shape = fields["image_shape"]
    if image_dtype is None:
        image = tf.cond(
            fields["image_dtype"] == "float16",
            lambda: tf.cast(tf.io.decode_raw(fields["image"], tf.float16), tf.float32),
            lambda: tf.io.decode_raw(fields["image"], tf.float32),
        )
    else:
        stored = fields["image_dtype"]
        message = f"image_dtype: expected {image_dtype} in the record. Received: "
        check = tf.debugging.Assert(stored == image_dtype, [message, stored])
        # None in eager mode, in which the assertion has already been checked.
        with tf.control_dependencies([] if check is None else [check]):
            image = tf.io.decode_raw(fields["image"], tf.as_dtype(image_dtype))
    coordinates = tf.io.decode_raw(fields["coordinates"], tf.int32)
    return {
        "domain": fields["domain"],
        "case": fields["case"],
        "image": tf.reshape(image, shape),
        "labels": tf.reshape(tf.io.decode_raw(fields["labels"], tf.uint8), shape[:3]),
        "label_counts": fields["label_counts"],
        "coordinates": tf.reshape(coordinates, [-1, 3]),
        "coordinate_counts": fields["coordinate_counts"],
    }


def decode(serialized: bytes) -> Record:
    """Parses a record into NumPy arrays, with a float32 image."""
    return to_record(parse(tf.constant(serialized)))


def stored_image_dtype(serialized: bytes) -> str:
    """Returns the name of the type in which a record stores its image.

    Raises:
      tf.errors.InvalidArgumentError: if it is not a record.
    """
    key = "image_dtype"
    fields = tf.io.parse_single_example(serialized, {key: _FEATURES[key]})
    return fields[key].numpy().decode()


def to_record(fields: Fields) -> Record:
    """Converts what `parse` returned eagerly to NumPy arrays."""
    values = {key: value.numpy() for key, value in fields.items()}
    for key in ("domain", "case"):
        values[key] = values[key].decode()
    return Record(**values)


def _check(record: Record) -> None:
    """Raises ValueError if the fields of a record are inconsistent."""
    image, labels = record.image, record.labels
    if str(image.dtype) not in IMAGE_DTYPES:
        raise ValueError(
            f"image: expected one of {IMAGE_DTYPES}. Received: {image.dtype}"
        )
    if labels.dtype != np.uint8:
        raise ValueError(f"labels: expected uint8. Received: {labels.dtype}")
    if image.ndim != 4 or image.shape[:3] != labels.shape:
        raise ValueError(
            "image: expected (z, y, x, C) over the shape of the labels. Received: "
            f"{image.shape} and {labels.shape}"
        )
    sampled = np.asarray(record.coordinate_counts)
    if record.coordinates.shape != (sampled.sum(), 3):
        raise ValueError(
            f"coordinates: expected shape ({sampled.sum()}, 3), the sum of "
            f"coordinate_counts. Received: {record.coordinates.shape}"
        )
    if sampled.shape != np.shape(record.label_counts):
        raise ValueError(
            "coordinate_counts: expected one per class as in label_counts, shape "
            f"{np.shape(record.label_counts)}. Received: {sampled.shape}"
        )


def _little_endian(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
