import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from u2net_tf.interpolation.matrices import interpolation_matrix
from u2net_tf.interpolation.positions import axis_positions
from u2net_tf.networks.ops import resizing


def test_unknown_method_is_an_error():
    with pytest.raises(ValueError, match="method: expected one of .*'nearest'"):
        resizing.resize_image(tf.zeros((1, 2, 2, 2, 1)), (4, 4, 4), method="nearest")


def reference(image, size, method):
    """In float64, axis by axis, with the matrices of `interpolation`."""
    for axis, new in enumerate(size, start=1):
        matrix = interpolation_matrix(new, image.shape[axis], method)
        image = np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)
    return image


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 3, 5), (4, 6, 10), (2, 6, 5), (4, 6, 5)])
def test_image_against_the_reference(method, channels, size):
    image = np.random.default_rng(0).normal(size=(2, 4, 6, 5, channels))
    resized = resizing.resize_image(tf.constant(image), size, method=method)
    assert resized.shape == (2, *size, channels)
    np.testing.assert_allclose(resized, reference(image, size, method), atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_image_in_float32_inside_a_dataset(method):
    images = np.random.default_rng(0).normal(size=(3, 2, 4, 6, 5, 2))
    dataset = tf.data.Dataset.from_tensor_slices(images.astype(np.float32))
    dataset = dataset.map(lambda x: resizing.resize_image(x, (3, 9, 4), method=method))
    assert dataset.element_spec.shape == (2, 3, 9, 4, 2)
    for image, resized in zip(images, dataset, strict=True):
        assert resized.dtype == tf.float32
        expected = reference(image, (3, 9, 4), method)
        np.testing.assert_allclose(resized, expected, atol=1e-5)


def test_number_of_samples_may_be_unknown():
    image = np.random.default_rng(0).normal(size=(2, 4, 6, 5, 2))
    signature = [tf.TensorSpec((None, 4, 6, 5, 2), tf.float64)]
    resized = tf.function(
        lambda x: resizing.resize_image(x, (2, 3, 10)), input_signature=signature
    )(image)
    np.testing.assert_allclose(
        resized, resizing.resize_image(tf.constant(image), (2, 3, 10)), atol=1e-12
    )


def test_linear_is_the_default():
    image = tf.random.stateless_normal((1, 4, 4, 4, 1), [0, 0], dtype=tf.float64)
    np.testing.assert_array_equal(
        resizing.resize_image(image, (6, 6, 6)),
        resizing.resize_image(image, (6, 6, 6), method="linear"),
    )


def test_same_size_is_the_image_itself():
    image = tf.random.stateless_normal((1, 3, 4, 5, 2), [0, 0])
    assert resizing.resize_image(image, (3, 4, 5), method="cubic") is image
    labels = tf.ones((1, 3, 4, 5), tf.uint8)
    assert resizing.resize_labels(labels, (3, 4, 5)) is labels


def test_labels_by_hand():
    row = tf.constant([1, 2, 3, 4], tf.uint8)

    def resize_row(new):
        labels = tf.reshape(row, (1, 1, 1, 4))
        return resizing.resize_labels(labels, (1, 1, new)).numpy().ravel().tolist()

    assert resize_row(8) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert resize_row(6) == [1, 2, 2, 3, 4, 4]
    assert resize_row(3) == [1, 3, 4]
    assert resize_row(1) == [3]


@pytest.mark.parametrize("size", [(8, 3, 5), (2, 9, 10), (4, 6, 5)])
def test_labels_take_the_nearest_voxel(size):
    labels = np.random.default_rng(0).integers(0, 200, (2, 4, 6, 5), dtype=np.uint8)
    expected = labels
    for axis, new in enumerate(size, start=1):
        nearest = np.floor(axis_positions(new, labels.shape[axis]) + 0.5).astype(int)
        expected = np.take(expected, nearest, axis=axis)
    dataset = tf.data.Dataset.from_tensors(labels)
    dataset = dataset.map(lambda x: resizing.resize_labels(x, size))
    (resized,) = dataset
    np.testing.assert_array_equal(resized, expected, strict=True)


def test_labels_and_image_stay_aligned():
    """The centre of a block stays in place, in the image and in the labels."""
    labels = np.zeros((1, 10, 10, 10), np.uint8)
    labels[0, 2:6, 4:9, 1:4] = 1
    image = labels[..., None].astype(np.float32)
    size = (20, 15, 40)
    resized = resizing.resize_image(tf.constant(image), size).numpy()[0, ..., 0]
    nearest = resizing.resize_labels(tf.constant(labels), size).numpy()[0]
    for array in (resized, nearest):
        centre = scipy.ndimage.center_of_mass(array)
        relative = (np.array(centre) + 0.5) / size
        np.testing.assert_allclose(relative, [0.4, 0.65, 0.25], atol=0.02)
