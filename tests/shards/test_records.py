import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.shards import records


def make_record(dtype=np.float16, num_modalities=2, num_classes=3, seed=0):
    generator = np.random.default_rng(seed)
    shape = (3, 5, 4)
    labels = generator.integers(0, num_classes, shape, dtype=np.uint8)
    coordinates, counts = records.sample_coordinates(
        labels, num_classes, per_class=4, seed=seed
    )
    return records.Record(
        domain="Task04_Hippocampus",
        case="hippocampus_001 é",
        image=generator.normal(size=(*shape, num_modalities)).astype(dtype),
        labels=labels,
        label_counts=np.bincount(labels.ravel(), minlength=num_classes),
        coordinates=coordinates,
        coordinate_counts=counts,
    )


def empty_record():
    return dataclasses.replace(
        make_record(),
        labels=np.zeros((3, 5, 4), np.uint8),
        label_counts=np.array([60, 0, 0]),
        coordinates=np.zeros((0, 3), np.int32),
        coordinate_counts=np.zeros(3, np.int64),
    )


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)


def assert_same(found, expected):
    assert found.domain == expected.domain
    assert found.case == expected.case
    assert found.image.dtype == np.float32
    np.testing.assert_array_equal(
        bits(found.image), bits(expected.image.astype(np.float32))
    )
    for field in ("labels", "label_counts", "coordinates", "coordinate_counts"):
        value = getattr(found, field)
        np.testing.assert_array_equal(value, getattr(expected, field), strict=False)
        assert value.shape == getattr(expected, field).shape
    assert found.labels.dtype == np.uint8
    assert found.coordinates.dtype == np.int32


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("num_modalities", [1, 2, 4])
def test_round_trip_is_exact(dtype, num_modalities):
    record = make_record(dtype, num_modalities)
    # A denormal number, a negative zero and the largest number, which are easily lost.
    largest = np.finfo(dtype).max
    record.image[0, 0, :3, 0] = [np.finfo(dtype).tiny / 2, -0.0, largest]
    assert_same(records.decode(records.encode(record)), record)


def test_round_trip_of_a_case_without_foreground():
    record = empty_record()
    assert_same(records.decode(records.encode(record)), record)


def test_round_trip_of_volumes_that_are_not_contiguous():
    record = make_record()
    flipped = dataclasses.replace(
        record, image=record.image[:, ::-1], labels=record.labels[:, ::-1]
    )
    assert_same(records.decode(records.encode(flipped)), flipped)


def test_parsing_inside_and_outside_a_dataset_agree():
    serialized = [records.encode(make_record(seed=seed)) for seed in range(2)]
    serialized += [records.encode(empty_record())]
    dataset = tf.data.Dataset.from_tensor_slices(serialized).map(records.parse)
    for fields, text in zip(dataset, serialized, strict=True):
        assert_same(records.to_record(fields), records.decode(text))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_known_type_is_not_converted(dtype):
    record = make_record(dtype)
    dataset = tf.data.Dataset.from_tensors(records.encode(record))
    dataset = dataset.map(lambda text: records.parse(text, image_dtype=dtype))
    (fields,) = dataset
    np.testing.assert_array_equal(fields["image"], record.image, strict=True)
    np.testing.assert_array_equal(fields["labels"], record.labels)


def test_a_wrong_type_is_an_error():
    serialized = records.encode(make_record("float16"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected float32 in"):
        records.parse(serialized, image_dtype="float32")
    dataset = tf.data.Dataset.from_tensors(serialized)
    dataset = dataset.map(lambda text: records.parse(text, image_dtype="float32"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected float32 in"):
        list(dataset)


def test_encoding_is_deterministic():
    assert records.encode(make_record()) == records.encode(make_record())
    assert records.encode(make_record()) != records.encode(make_record(seed=1))


def test_invalid_records_are_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError):
        records.decode(b"something else")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((3, 5, 4, 1))}, "image: expected one of .*float64"),
        ({"image": np.zeros((3, 5, 4), np.float16)}, r"\(z, y, x, C\)"),
        ({"image": np.zeros((3, 4, 5, 1), np.float16)}, r"Received: \(3, 4, 5, 1\)"),
        ({"labels": np.full((3, 5, 4), 300)}, "labels: expected uint8.*int64"),
        ({"coordinates": np.zeros((2, 3), np.int32)}, r"coordinates: .*\(8, 3\)"),
        ({"coordinates": np.zeros((8, 2), np.int32)}, r"Received: \(8, 2\)"),
        ({"label_counts": np.zeros(2, np.int64)}, r"coordinate_counts: .*\(2,\)"),
    ],
)
def test_inconsistent_fields_are_errors(changes, message):
    record = dataclasses.replace(make_record(), **changes)
    with pytest.raises(ValueError, match=message):
        records.encode(record)


def make_labels():
    """Returns labels with 24, 3, 0 and 1 voxels of classes 1 to 4."""
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[1, :4, 2:] = 1
    labels[3, 5, :3] = 2
    labels[0, 0, 7] = 4
    return labels


@pytest.mark.parametrize("per_class", [1, 5, 1000])
def test_sampled_voxels_belong_to_their_class(per_class):
    labels = make_labels()
    coordinates, counts = records.sample_coordinates(
        labels, 5, per_class=per_class, seed=0
    )
    sizes = [0, *(min(size, per_class) for size in (24, 3, 0, 1))]
    assert counts.tolist() == sizes
    assert coordinates.dtype == np.int32
    assert counts.dtype == np.int64
    assert coordinates.shape == (sum(sizes), 3)
    found = labels[tuple(coordinates.T)]
    assert found.tolist() == np.repeat(np.arange(5), sizes).tolist()
    assert len(np.unique(coordinates, axis=0)) == len(coordinates)


def test_small_classes_are_sampled_completely():
    coordinates, _ = records.sample_coordinates(make_labels(), 5, per_class=3, seed=0)
    assert coordinates[3:].tolist() == [[3, 5, 0], [3, 5, 1], [3, 5, 2], [0, 0, 7]]


def test_sampled_voxels_depend_on_the_seed():
    labels = make_labels()
    drawn = [
        records.sample_coordinates(labels, 5, per_class=8, seed=seed)[0].tolist()
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_voxels_of_a_class_are_sampled_uniformly():
    labels = make_labels()
    hits = np.zeros(labels.shape, int)
    draws = 2000
    for seed in range(draws):
        coordinates, _ = records.sample_coordinates(labels, 2, per_class=6, seed=seed)
        hits[tuple(coordinates.T)] += 1
    expected = draws * 6 / 24
    deviation = np.sqrt(draws * 0.25 * 0.75)
    assert np.abs(hits[labels == 1] - expected).max() < 4.5 * deviation


def test_background_is_sampled_if_voxels_may_lack_annotation():
    labels = make_labels()
    labels[labels == 4] = 3
    options = {"per_class": 7, "seed": 0}
    coordinates, counts = records.sample_coordinates(
        labels, 4, partly_annotated=True, **options
    )
    # Four classes, and those without annotation.
    assert counts.shape == (5,)
    assert (counts[0], counts[4]) == (7, 0)
    found = labels[tuple(coordinates.T)]
    np.testing.assert_array_equal(found, np.repeat(np.arange(5), counts))
    labels[labels == 0] = 4
    coordinates, counts = records.sample_coordinates(
        labels, 4, partly_annotated=True, **options
    )
    assert (counts[0], counts[4]) == (0, 0)
    assert 4 not in labels[tuple(coordinates.T)]


def test_labels_without_foreground_yield_no_voxels():
    coordinates, counts = records.sample_coordinates(
        np.zeros((2, 3, 4), np.uint8), 3, per_class=10, seed=0
    )
    assert coordinates.shape == (0, 3)
    assert counts.tolist() == [0, 0, 0]


def test_labels_are_counted_by_class():
    labels = np.array([[[0, 2, 2]], [[2, 0, 0]]], np.uint8)
    assert records.count_labels(labels, 4).tolist() == [3, 0, 3, 0]
    # Labels beyond the classes of the plan are counted, too.
    assert records.count_labels(labels, 1).tolist() == [3, 0, 3]
