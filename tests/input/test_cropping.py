import numpy as np
import pytest
import tensorflow as tf
from records_of_labels import make_fields

from u2net_tf.inference import windows
from u2net_tf.input import cropping


def crop(fields, start, size, inside):
    """Image and labels of a patch, cropped inside or outside tf.data."""
    start = tf.constant(start)
    if not inside:
        return cropping.crop_patch(fields, start, size)
    dataset = tf.data.Dataset.from_tensors(fields)
    dataset = dataset.map(lambda fields: cropping.crop_patch(fields, start, size))
    (patch,) = dataset
    return patch


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("dtype", [tf.float16, tf.float32])
def test_patch_is_a_part_of_the_volume(inside, dtype):
    labels = np.random.default_rng(0).integers(0, 3, (6, 7, 8))
    fields = make_fields(labels)
    fields["image"] = tf.cast(fields["image"], dtype)
    image, patch_labels = crop(fields, [1, 4, 2], (3, 2, 5), inside)
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
    image, patch_labels = crop(fields, [0, 0, 0], (2, 5, 2), inside)
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
    image, _ = cropping.crop_patch(fields, tf.constant([0, 5, 5]), (4, 4, 4))
    assert image.numpy()[1:3].min() == fields["image"][0, 5, 5, 0]
    assert set(image.numpy()[[0, 3]].ravel()) == {0}


def test_padding_equals_that_of_the_sliding_window():
    image = np.random.default_rng(0).normal(size=(3, 9, 4, 2)).astype(np.float32)
    fields = make_fields(np.zeros((3, 9, 4))) | {"image": tf.constant(image)}
    cropped, _ = cropping.crop_patch(fields, tf.constant([0, 0, 0]), (6, 9, 7))
    seen = []

    def predict(batch):
        seen.append(batch[0])
        return np.zeros((1, 6, 9, 7, 1), np.float32)

    windows.predict_volume(image, predict, patch_size=(6, 9, 7), num_classes=1)
    np.testing.assert_array_equal(cropped, seen[0], strict=True)


def test_shape_of_a_patch_is_static_inside_a_dataset():
    shapes = {"image": (None, None, None, 2), "labels": (None, None, None)}
    signature = {
        "image": tf.TensorSpec(shapes["image"], tf.float16),
        "labels": tf.TensorSpec(shapes["labels"], tf.uint8),
    }
    traced = tf.function(
        lambda fields: cropping.crop_patch(fields, tf.constant([0, 0, 0]), (4, 5, 6)),
        input_signature=[signature],
    ).get_concrete_function()
    image, labels = traced.structured_outputs
    assert image.shape == (4, 5, 6, 2)
    assert labels.shape == (4, 5, 6)


# Boxes.


def noise(shape=(14, 18, 16)):
    generator = np.random.default_rng(0)
    image = generator.uniform(-1, 1, (*shape, 2)).astype(np.float32)
    return {
        "image": tf.constant(image),
        "labels": tf.constant(generator.integers(0, 5, shape).astype(np.uint8)),
    }


@pytest.mark.parametrize("first", [(-30, 0, 0), (0, 40, 0), (2, 3, -12)])
def test_a_box_outside_the_volume_is_padding(first):
    fields = noise()
    box, labels = cropping.crop_box(
        fields, tf.constant(first), (5, 6, 7), tf.zeros(3, tf.int32)
    )
    lowest = fields["image"].numpy().min(axis=(0, 1, 2))
    expected = np.broadcast_to(lowest[:, None, None, None], (2, 5, 6, 7))
    np.testing.assert_array_equal(box, expected)
    np.testing.assert_array_equal(labels, np.zeros((5, 6, 7)))


def test_the_unused_margin_of_a_box_is_not_read():
    fields = noise()
    unused_margin = tf.constant([0, 1, 2])
    box, labels = cropping.crop_box(
        fields, tf.constant((2, 3, 4)), (5, 6, 7), unused_margin
    )
    outer = np.ones((5, 6, 7), bool)
    outer[:, 1:-1, 2:-2] = False
    image = np.moveaxis(fields["image"].numpy(), -1, 0)[:, 2:7, 3:9, 4:11]
    np.testing.assert_array_equal(box.numpy()[:, ~outer], image[:, ~outer])
    assert (box.numpy()[:, outer] == 0).all()
    assert (labels.numpy()[outer] == 0).all()
    expected = fields["labels"].numpy()[2:7, 3:9, 4:11]
    np.testing.assert_array_equal(labels.numpy()[~outer], expected[~outer])


def test_a_box_is_a_padded_patch_with_the_modalities_first():
    fields = noise((3, 9, 4))
    size = (6, 5, 7)
    origin = tf.constant([0, 2, 0])
    first = cropping.first_voxel(origin, tf.constant([3, 9, 4]), size)
    # Three voxels are missing along z and x, and one of them is padded before.
    assert first.numpy().tolist() == [-1, 2, -1]
    box, box_labels = cropping.crop_box(fields, first, size)
    image, labels = cropping.crop_patch(fields, origin, size)
    np.testing.assert_array_equal(np.moveaxis(box.numpy(), 0, -1), image)
    np.testing.assert_array_equal(box_labels, labels)
