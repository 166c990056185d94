import math

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.config.data import SamplingConfig
from u2net_tf.input import cropping


def make_fields(labels, num_classes=3, channels=2):
    """A record of these labels in which every voxel's intensity is its index."""
    labels = np.asarray(labels, np.uint8)
    image = np.arange(labels.size * channels, dtype=np.float32)
    groups = [np.argwhere(labels == k) for k in range(1, num_classes)]
    return {
        "image": tf.constant(image.reshape(*labels.shape, channels)),
        "labels": tf.constant(labels),
        "label_counts": tf.constant(
            np.bincount(labels.ravel(), minlength=num_classes), tf.int64
        ),
        "coordinates": tf.constant(np.concatenate(groups), tf.int32),
        "coordinate_counts": tf.constant([0, *map(len, groups)], tf.int64),
    }


def two_blobs(shape=(20, 20, 20)):
    """Class 1: 60 voxels at low indices; class 2: 1 voxel far away."""
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 2:7, 2:6] = 1
    labels[15, 16, 14] = 2
    return labels


def draw_starts(
    fields, count, *, size=(5, 5, 5), slot=1, batch_size=2, certain=1 / 3, **shares
):
    """(count, 3) starts, drawn inside of tf.data."""
    sampling = SamplingConfig(oversample_foreground_fraction=certain, **shares)

    def draw(number):
        seed = tf.stack([tf.constant(7, tf.int64), number])
        where = tf.constant(slot, tf.int64)
        return cropping.draw_start(fields, size, where, batch_size, sampling, seed)

    dataset = tf.data.Dataset.range(count).map(draw).batch(count)
    (starts,) = dataset.as_numpy_iterator()
    return starts


def contains(starts, voxel, size=(5, 5, 5)):
    offset = np.asarray(voxel) - starts
    return ((offset >= 0) & (offset < size)).all(axis=1)


def assert_share(hits, share):
    """The share of hits, up to 4.5 standard deviations of a binomial."""
    tolerance = 4.5 * math.sqrt(share * (1 - share) / len(hits))
    assert abs(hits.mean() - share) <= tolerance, (hits.mean(), share, tolerance)


# Where patches lie.


def test_drawing_outside_of_a_dataset_is_drawing_inside():
    fields = make_fields(two_blobs())
    inside = draw_starts(fields, 40)
    outside = [
        cropping.draw_start(
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


def test_seed_decides_the_start():
    starts = draw_starts(make_fields(two_blobs()), 40)
    np.testing.assert_array_equal(starts, draw_starts(make_fields(two_blobs()), 40))
    assert len(np.unique(starts, axis=0)) > 10


def test_anywhere_is_everywhere_and_as_often():
    fields = make_fields(np.zeros((7, 5, 6)))
    starts = draw_starts(
        fields,
        4000,
        certain=0,
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
    for shares in (
        {"certain": 1},
        {"certain": 0},
    ):
        starts = draw_starts(make_fields(labels), 50, **shares)
        assert set(starts[:, 0]) == {0}
        assert set(starts[:, 2]) == {0}
        assert starts[:, 1].max() == 3


@pytest.mark.parametrize(
    ("voxel", "size", "start"),
    [
        ((10, 9, 8), (5, 5, 5), (8, 7, 6)),
        ((10, 9, 8), (4, 6, 2), (8, 6, 7)),
        # Moved where the patch would leave the volume.
        ((0, 19, 1), (5, 5, 5), (0, 15, 0)),
        ((19, 0, 18), (4, 4, 4), (16, 0, 16)),
    ],
)
def test_voxel_lies_at_the_centre(voxel, size, start):
    labels = np.zeros((20, 20, 20))
    labels[voxel] = 1
    starts = draw_starts(make_fields(labels), 5, size=size, certain=1)
    assert np.unique(starts, axis=0).tolist() == [list(start)]


# How often they lie where.

SMALLEST = (15, 16, 14)


def on_smallest(starts):
    return (starts == np.array(SMALLEST) - 2).all(axis=1)


def on_foreground(starts):
    """Centred on a voxel of either class; patches of 5 are centred at start + 2."""
    return two_blobs()[tuple((starts + 2).T)] > 0


def test_certain_patches_lie_around_any_foreground():
    starts = draw_starts(make_fields(two_blobs()), 3000, slot=0)
    assert on_foreground(starts).all()
    # 61 voxels are listed, and one of them is of class 2.
    assert_share(on_smallest(starts), 1 / 61)


@pytest.mark.parametrize(
    ("slot", "batch_size", "share", "certain"),
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
def test_first_slots_of_a_batch_are_certain(slot, batch_size, share, certain):
    starts = draw_starts(
        make_fields(two_blobs()),
        100,
        slot=slot,
        batch_size=batch_size,
        certain=share,
        smallest_share=0,
        foreground_share=0,
    )
    assert on_foreground(starts).all() == certain


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
    starts = draw_starts(
        fields, 4000, smallest_share=smallest, foreground_share=foreground
    )
    uniform = 1 - smallest - foreground
    # A patch that lies anywhere is centred on these voxels by chance.
    chance = 61 / 16**3
    assert_share(on_smallest(starts), smallest + foreground / 61 + uniform / 16**3)
    assert_share(on_foreground(starts), smallest + foreground + uniform * chance)


def test_smallest_class_is_the_one_with_fewest_voxels_not_fewest_coordinates():
    fields = make_fields(two_blobs())
    # Class 1 lists one of its voxels, and class 2 is said to have more of them.
    fields["coordinates"] = fields["coordinates"][-2:]
    fields["coordinate_counts"] = tf.constant([0, 1, 1], tf.int64)
    fields["label_counts"] = tf.constant([7000, 60, 70], tf.int64)
    starts = draw_starts(
        fields,
        50,
        certain=0,
        smallest_share=1,
        foreground_share=0,
    )
    assert not on_smallest(starts).any()
    fields["label_counts"] = tf.constant([7000, 60, 50], tf.int64)
    starts = draw_starts(
        fields,
        50,
        certain=0,
        smallest_share=1,
        foreground_share=0,
    )
    assert on_smallest(starts).all()


def test_absent_class_is_not_the_smallest():
    labels = two_blobs()
    labels[labels == 2] = 0
    starts = draw_starts(
        make_fields(labels),
        50,
        certain=0,
        smallest_share=1,
        foreground_share=0,
    )
    assert (labels[tuple((starts + 2).T)] == 1).all()


@pytest.mark.parametrize("slot", [0, 1])
def test_case_without_foreground_is_cut_anywhere(slot):
    fields = make_fields(np.zeros((8, 8, 8)))
    starts = draw_starts(
        fields, 500, slot=slot, smallest_share=0.5, foreground_share=0.5
    )
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert starts.max(axis=0).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("share", "batch_size", "certain"),
    [(1 / 3, 3, 1), (1 / 3, 6, 2), (1 / 3, 4, 2), (1 / 3, 1, 1), (0, 5, 0), (1, 5, 5)],
)
def test_number_of_certain_patches(share, batch_size, certain):
    sampling = SamplingConfig(oversample_foreground_fraction=share)
    assert sampling.num_certain(batch_size) == certain


@pytest.mark.parametrize("name", SamplingConfig.settings())
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_share_that_is_none_is_an_error(name, value):
    with pytest.raises(ValueError, match=rf"(?s){name}.*input_value={value}"):
        SamplingConfig(**{name: value})


def test_shares_of_more_than_everything_are_an_error():
    SamplingConfig(smallest_share=0.6, foreground_share=0.4)
    with pytest.raises(ValueError, match="expected at most 1. Received: 0.6 . 0.5"):
        SamplingConfig(smallest_share=0.6, foreground_share=0.5)


# Cutting.


def cut(fields, start, size, inside):
    """Image and labels of a patch, cut inside or outside of tf.data."""
    start = tf.constant(start)
    if not inside:
        return cropping.cut_patch(fields, start, size)
    dataset = tf.data.Dataset.from_tensors(fields)
    dataset = dataset.map(lambda fields: cropping.cut_patch(fields, start, size))
    (patch,) = dataset
    return patch


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("dtype", [tf.float16, tf.float32])
def test_patch_is_a_part_of_the_volume(inside, dtype):
    labels = np.random.default_rng(0).integers(0, 3, (6, 7, 8))
    fields = make_fields(labels)
    fields["image"] = tf.cast(fields["image"], dtype)
    image, patch_labels = cut(fields, [1, 4, 2], (3, 2, 5), inside)
    box = (slice(1, 4), slice(4, 6), slice(2, 7))
    np.testing.assert_array_equal(image, fields["image"].numpy()[box], strict=True)
    np.testing.assert_array_equal(patch_labels, labels[box])
    assert patch_labels.dtype == tf.uint8


@pytest.mark.parametrize("inside", [False, True])
def test_smaller_volume_is_padded_on_both_sides(inside):
    labels = np.array([[[1, 2], [2, 1]]])
    fields = make_fields(labels)
    values = [[[[0.1, 7.3], [-3.3, 8.1]], [[5.7, 6.9], [2.2, 9.4]]]]
    fields["image"] = tf.constant(values)
    image, patch_labels = cut(fields, [0, 0, 0], (2, 5, 2), inside)
    # 1 -> 2: the odd voxel comes after; 2 -> 5: one before and two after.
    expected = np.zeros((2, 5, 2), np.uint8)
    expected[0, 1:3] = labels
    np.testing.assert_array_equal(patch_labels, expected, strict=True)
    padded = np.empty((2, 5, 2, 2), np.float32)
    padded[...] = [np.float32(-3.3), np.float32(6.9)]
    padded[0, 1:3] = np.float32(values)[0]
    np.testing.assert_array_equal(image, padded, strict=True)


def test_padding_is_the_minimum_of_the_volume_not_of_the_patch():
    labels = np.zeros((2, 9, 9))
    fields = make_fields(labels, channels=1)
    image, _ = cropping.cut_patch(fields, tf.constant([0, 5, 5]), (4, 4, 4))
    assert image.numpy()[1:3].min() == fields["image"][0, 5, 5, 0]
    assert set(image.numpy()[[0, 3]].ravel()) == {0}


def test_padding_is_that_of_the_sliding_window():
    from u2net_tf.inference import windows

    image = np.random.default_rng(0).normal(size=(3, 9, 4, 2)).astype(np.float32)
    fields = make_fields(np.zeros((3, 9, 4))) | {"image": tf.constant(image)}
    cut_image, _ = cropping.cut_patch(fields, tf.constant([0, 0, 0]), (6, 9, 7))
    seen = []

    def predict(batch):
        seen.append(batch[0])
        return np.zeros((1, 6, 9, 7, 1), np.float32)

    windows.predict_volume(image, predict, patch_size=(6, 9, 7), num_classes=1)
    np.testing.assert_array_equal(cut_image, seen[0], strict=True)


def test_shape_of_a_patch_is_known_inside_of_a_dataset():
    shapes = {"image": (None, None, None, 2), "labels": (None, None, None)}
    signature = {
        "image": tf.TensorSpec(shapes["image"], tf.float16),
        "labels": tf.TensorSpec(shapes["labels"], tf.uint8),
    }
    traced = tf.function(
        lambda fields: cropping.cut_patch(fields, tf.constant([0, 0, 0]), (4, 5, 6)),
        input_signature=[signature],
    ).get_concrete_function()
    image, labels = traced.structured_outputs
    assert image.shape == (4, 5, 6, 2)
    assert labels.shape == (4, 5, 6)


# Mirroring and resizing.


def test_mirroring_readable_by_eye():
    array = tf.constant([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])

    def mirror(*axes):
        return (
            cropping.apply_mirroring(array, tf.constant(axes)).numpy().ravel().tolist()
        )

    assert mirror(False, False, False) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert mirror(True, False, False) == [5, 6, 7, 8, 1, 2, 3, 4]
    assert mirror(False, True, False) == [3, 4, 1, 2, 7, 8, 5, 6]
    assert mirror(False, False, True) == [2, 1, 4, 3, 6, 5, 8, 7]
    assert mirror(True, True, True) == [8, 7, 6, 5, 4, 3, 2, 1]


def test_mirroring_leaves_the_channels_in_their_order():
    array = tf.reshape(tf.range(2 * 3 * 4 * 2), (2, 3, 4, 2))
    dataset = tf.data.Dataset.from_tensors(array).map(
        lambda x: cropping.apply_mirroring(x, tf.constant([True, False, True]))
    )
    (mirrored,) = dataset
    np.testing.assert_array_equal(mirrored, array.numpy()[::-1, :, ::-1])
    assert dataset.element_spec.shape == (2, 3, 4, 2)


def draw_mirrorings(axes, probability, count):
    dataset = tf.data.Dataset.range(count).map(
        lambda number: cropping.draw_mirroring(
            axes, probability, tf.stack([tf.constant(3, tf.int64), number])
        )
    )
    (drawn,) = dataset.batch(count).as_numpy_iterator()
    return drawn


@pytest.mark.parametrize("axes", [(), ("x",), ("z", "y"), ("z", "y", "x")])
def test_only_the_axes_allowed_are_mirrored(axes):
    always = draw_mirrorings(axes, 1.0, 50)
    assert always.all(axis=0).tolist() == [axis in axes for axis in "zyx"]
    assert always.any(axis=0).tolist() == [axis in axes for axis in "zyx"]
    assert not draw_mirrorings(axes, 0.0, 50).any()


def test_mirroring_is_as_probable_as_told_and_independent_for_each_axis():
    drawn = draw_mirrorings(("z", "y", "x"), 0.3, 3000)
    for axis in range(3):
        assert_share(drawn[:, axis], 0.3)
    assert_share(drawn[:, 0] & drawn[:, 2], 0.09)
    np.testing.assert_array_equal(drawn[:20], draw_mirrorings("zyx", 0.3, 20))


@pytest.mark.parametrize("inside", [False, True])
def test_resizing_of_a_patch(inside):
    image = tf.random.stateless_normal((4, 6, 8, 2), [0, 1])
    labels = tf.cast(image[..., 0] > 0, tf.uint8)

    def resize(image, labels):
        return cropping.resize_patch(image, labels, (2, 6, 4), method="cubic")

    if inside:
        dataset = tf.data.Dataset.from_tensors((image, labels)).map(resize)
        ((small, small_labels),) = dataset
    else:
        small, small_labels = resize(image, labels)
    expected = cropping.resize_image(image[None], (2, 6, 4), method="cubic")[0]
    np.testing.assert_allclose(small, expected, atol=1e-5)
    np.testing.assert_array_equal(small_labels, labels.numpy()[1::2, :, 1::2])
