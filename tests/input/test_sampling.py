import math

import numpy as np
import pytest
import tensorflow as tf
from records_of_labels import make_fields

from u2net_tf.config.data import SamplingConfig
from u2net_tf.input import sampling


def two_blobs(shape=(20, 20, 20)):
    """Labels with 60 voxels of class 1 at low indices and a distant one of class 2."""
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 2:7, 2:6] = 1
    labels[15, 16, 14] = 2
    return labels


def draw_origins(
    fields,
    count,
    *,
    size=(5, 5, 5),
    index=1,
    batch_size=2,
    oversample=1 / 3,
    partly_annotated=False,
    **shares,
):
    """Returns (count, 3) origins, drawn inside tf.data."""
    chosen = SamplingConfig(oversample_foreground_fraction=oversample, **shares)

    def draw(number):
        seed = tf.stack([tf.constant(7, tf.int64), number])
        where = tf.constant(index, tf.int64)
        return sampling.draw_patch_origin(
            fields,
            size,
            where,
            batch_size,
            chosen,
            seed,
            partly_annotated=partly_annotated,
        )

    dataset = tf.data.Dataset.range(count).map(draw).batch(count)
    (starts,) = dataset.as_numpy_iterator()
    return starts


def contains(starts, voxel, size=(5, 5, 5)):
    offset = np.asarray(voxel) - starts
    return ((offset >= 0) & (offset < size)).all(axis=1)


def assert_fraction(hits, expected):
    """Checks the fraction of hits, within 4.5 standard deviations of a binomial."""
    tolerance = 4.5 * math.sqrt(expected * (1 - expected) / len(hits))
    assert abs(hits.mean() - expected) <= tolerance, (hits.mean(), expected, tolerance)


# Positions of patches.


def test_draws_are_the_same_inside_and_outside_a_dataset():
    fields = make_fields(two_blobs())
    inside = draw_origins(fields, 40)
    outside = [
        sampling.draw_patch_origin(
            fields,
            (5, 5, 5),
            tf.constant(1, tf.int64),
            2,
            SamplingConfig(),
            tf.constant([7, number], tf.int64),
        )
        for number in range(40)
    ]
    np.testing.assert_array_equal(inside, np.stack(outside))
    assert outside[0].dtype == tf.int32


def test_origin_depends_only_on_the_seed():
    starts = draw_origins(make_fields(two_blobs()), 40)
    np.testing.assert_array_equal(starts, draw_origins(make_fields(two_blobs()), 40))
    assert len(np.unique(starts, axis=0)) > 10


def test_uniform_origins_are_uniform():
    fields = make_fields(np.zeros((7, 5, 6)))
    starts = draw_origins(
        fields,
        4000,
        oversample=0,
        smallest_share=0,
        foreground_share=0,
    )
    assert starts.dtype == np.int32
    found, counts = np.unique(starts, axis=0, return_counts=True)
    expected = [[z, 0, x] for z in range(3) for x in range(2)]
    assert found.tolist() == expected
    for count in counts:
        tolerance = 4.5 * math.sqrt(4000 * 1 / 6 * 5 / 6)
        assert abs(count - 4000 / 6) < tolerance


def test_start_is_0_along_an_axis_shorter_than_the_patch():
    labels = np.zeros((3, 8, 5))
    labels[2, 7, 4] = 1
    for oversample in (0, 1):
        starts = draw_origins(make_fields(labels), 50, oversample=oversample)
        assert set(starts[:, 0]) == {0}
        assert set(starts[:, 2]) == {0}
        assert starts[:, 1].max() == 3


@pytest.mark.parametrize(
    ("voxel", "size", "start"),
    [
        ((10, 9, 8), (5, 5, 5), (8, 7, 6)),
        ((10, 9, 8), (4, 6, 2), (8, 6, 7)),
        # Shifted if the patch would extend beyond the volume.
        ((0, 19, 1), (5, 5, 5), (0, 15, 0)),
        ((19, 0, 18), (4, 4, 4), (16, 0, 16)),
    ],
)
def test_foreground_voxel_is_at_the_centre(voxel, size, start):
    labels = np.zeros((20, 20, 20))
    labels[voxel] = 1
    starts = draw_origins(make_fields(labels), 5, size=size, oversample=1)
    assert np.unique(starts, axis=0).tolist() == [list(start)]


# Frequencies of positions.

SMALLEST = (15, 16, 14)


def on_smallest(starts):
    return (starts == np.array(SMALLEST) - 2).all(axis=1)


def on_foreground(starts):
    """Centred on a voxel of either class; patches of 5 are centred at start + 2."""
    return two_blobs()[tuple((starts + 2).T)] > 0


def test_foreground_patches_are_centred_on_any_foreground_voxel():
    starts = draw_origins(make_fields(two_blobs()), 3000, index=0)
    assert on_foreground(starts).all()
    # 61 voxels are listed, and one of them is of class 2.
    assert_fraction(on_smallest(starts), 1 / 61)


@pytest.mark.parametrize(
    ("index", "batch_size", "oversample", "expected"),
    [
        (0, 3, 1 / 3, True),
        (1, 3, 1 / 3, False),
        (0, 4, 1 / 3, True),
        (1, 4, 1 / 3, True),
        (2, 4, 1 / 3, False),
        (0, 1, 0, False),
        (2, 3, 1, True),
    ],
)
def test_first_patches_of_a_batch_are_foreground_patches(
    index, batch_size, oversample, expected
):
    starts = draw_origins(
        make_fields(two_blobs()),
        100,
        index=index,
        batch_size=batch_size,
        oversample=oversample,
        smallest_share=0,
        foreground_share=0,
    )
    assert on_foreground(starts).all() == expected


@pytest.mark.parametrize(
    ("smallest", "foreground"),
    [
        (0.5, 0.2),
        *(
            pytest.param(*shares, marks=pytest.mark.slow)
            for shares in ((0.3, 0.3), (0.5, 0), (0, 0.4), (0.2, 0.8))
        ),
    ],
)
def test_shares_of_the_other_patches(smallest, foreground):
    fields = make_fields(two_blobs())
    starts = draw_origins(
        fields, 4000, smallest_share=smallest, foreground_share=foreground
    )
    uniform = 1 - smallest - foreground
    # A patch at a uniform position is centred on these voxels by chance.
    chance = 61 / 16**3
    assert_fraction(on_smallest(starts), smallest + foreground / 61 + uniform / 16**3)
    assert_fraction(on_foreground(starts), smallest + foreground + uniform * chance)


def test_smallest_class_is_the_one_with_fewest_voxels_not_fewest_coordinates():
    fields = make_fields(two_blobs())
    # Each class lists one voxel, and class 2 has the larger count.
    fields["coordinates"] = fields["coordinates"][-2:]
    fields["coordinate_counts"] = tf.constant([0, 1, 1], tf.int64)
    fields["label_counts"] = tf.constant([7000, 60, 70], tf.int64)
    starts = draw_origins(
        fields,
        50,
        oversample=0,
        smallest_share=1,
        foreground_share=0,
    )
    assert not on_smallest(starts).any()
    fields["label_counts"] = tf.constant([7000, 60, 50], tf.int64)
    starts = draw_origins(
        fields,
        50,
        oversample=0,
        smallest_share=1,
        foreground_share=0,
    )
    assert on_smallest(starts).all()


def test_absent_class_is_not_the_smallest():
    labels = two_blobs()
    labels[labels == 2] = 0
    starts = draw_origins(
        make_fields(labels),
        50,
        oversample=0,
        smallest_share=1,
        foreground_share=0,
    )
    assert (labels[tuple((starts + 2).T)] == 1).all()


@pytest.mark.parametrize("index", [0, 1])
def test_case_without_foreground_is_cropped_anywhere(index):
    fields = make_fields(np.zeros((8, 8, 8)))
    starts = draw_origins(
        fields,
        500,
        index=index,
        smallest_share=0.5,
        foreground_share=0.5,
    )
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert starts.max(axis=0).tolist() == [3, 3, 3]


class TestPartlyAnnotated:
    """Only the slices 2 to 4 and 15 are annotated; index 3 marks the others."""

    @pytest.fixture
    def fields(self):
        labels = two_blobs()
        annotated = np.isin(np.arange(20), (2, 3, 4, 15))
        labels[~annotated] = 3
        fields = make_fields(labels)
        background = np.argwhere(labels == 0)[::40].astype(np.int32)
        coordinates = tf.concat([background, fields["coordinates"]], axis=0)
        counts = [len(background), 60, 1, 0]
        return {
            **fields,
            "coordinates": coordinates,
            "coordinate_counts": tf.constant(counts, tf.int64),
        }

    def draw(self, fields, smallest, foreground):
        return draw_origins(
            fields,
            4000,
            partly_annotated=True,
            smallest_share=smallest,
            foreground_share=foreground,
        )

    def test_other_patches_are_around_annotated_background(self, fields):
        starts = self.draw(fields, 0, 0)
        count = int(fields["coordinate_counts"][0])
        centres = np.clip(fields["coordinates"][:count] - 2, 0, 15)
        found = {tuple(start) for start in starts.tolist()}
        assert found == {tuple(centre) for centre in centres.tolist()}

    def test_shares_are_those_of_other_domains(self, fields):
        starts = self.draw(fields, 0.3, 0)
        assert_fraction((starts == (13, 14, 12)).all(axis=1), 0.3)
        # All foreground, without the background that precedes it.
        starts = self.draw(fields, 0, 1)
        assert on_foreground(starts).all()
        assert_fraction((starts == (13, 14, 12)).all(axis=1), 1 / 61)

    def test_background_is_not_the_smallest_class(self, fields):
        fields["label_counts"] = tf.constant([1, 60, 2, 7000], tf.int64)
        starts = self.draw(fields, 1, 0)
        assert (starts == (13, 14, 12)).all()

    def test_without_annotated_background_they_are_around_foreground(self, fields):
        count = int(fields["coordinate_counts"][0])
        fields["coordinates"] = fields["coordinates"][count:]
        fields["coordinate_counts"] = tf.constant([0, 60, 1, 0], tf.int64)
        assert on_foreground(self.draw(fields, 0, 0)).all()

    def test_without_annotation_they_are_anywhere(self, fields):
        fields["coordinates"] = fields["coordinates"][:0]
        fields["coordinate_counts"] = tf.constant([0, 0, 0, 0], tf.int64)
        assert len(np.unique(self.draw(fields, 0.5, 0.5), axis=0)) > 1000


@pytest.mark.parametrize(
    ("oversample", "batch_size", "expected"),
    [(1 / 3, 3, 1), (1 / 3, 6, 2), (1 / 3, 4, 2), (1 / 3, 1, 1), (0, 5, 0), (1, 5, 5)],
)
def test_number_of_foreground_patches(oversample, batch_size, expected):
    chosen = SamplingConfig(oversample_foreground_fraction=oversample)
    assert chosen.num_foreground_patches(batch_size) == expected


@pytest.mark.parametrize("name", SamplingConfig.settings())
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_an_invalid_fraction_is_an_error(name, value):
    with pytest.raises(ValueError, match=rf"(?s){name}.*input_value={value}"):
        SamplingConfig(**{name: value})


def test_shares_above_one_are_an_error():
    SamplingConfig(smallest_share=0.6, foreground_share=0.4)
    with pytest.raises(ValueError, match="expected at most 1. Received: 0.6 . 0.5"):
        SamplingConfig(smallest_share=0.6, foreground_share=0.5)


# Permutations of a batch.


def test_patches_of_a_batch_are_permuted():
    def permuted(key):
        numbers = tf.data.Dataset.range(3 * 600)
        indices = numbers.map(lambda n: sampling.permute_in_batch(n, 3, key)).batch(3)
        return np.stack(list(indices.as_numpy_iterator()))

    found = permuted((5 << 32) + 7)
    orders, counts = np.unique(found, axis=0, return_counts=True)
    assert orders.tolist() == [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ]
    tolerance = 4.5 * math.sqrt(600 * 1 / 6 * 5 / 6)
    assert abs(counts - 100).max() < tolerance
    assert not np.array_equal(found, permuted((5 << 32) + 8))
    assert not np.array_equal(found, permuted((6 << 32) + 7))
