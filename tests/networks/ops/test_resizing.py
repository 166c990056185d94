import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from u2net_tf.networks.ops import resizing

SIZES = [(4, 2), (2, 4), (5, 5), (7, 3), (3, 7), (1, 4), (4, 1), (64, 40), (40, 64)]


def positions(new, old):
    """Where the centres of the new voxels lie, in voxels of the old ones."""
    return (np.arange(new) + 0.5) * old / new - 0.5


def interpolate(values, place, method):
    """One value, from the formula; the outermost voxels go on for ever."""

    def at(index):
        return values[min(max(index, 0), len(values) - 1)]

    first = int(np.floor(place))
    t = place - first
    if method == "linear":
        return (1 - t) * at(first) + t * at(first + 1)
    # Keys 1981, equation 3: a parabola through four points on each side.
    before, here, after, beyond = (at(first + tap) for tap in (-1, 0, 1, 2))
    return (
        here
        + t * (after - before) / 2
        + t**2 * (2 * before - 5 * here + 4 * after - beyond) / 2
        + t**3 * (3 * here - before - 3 * after + beyond) / 2
    )


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("new", "old"), SIZES)
def test_matrix_against_the_formula(new, old, method):
    values = np.random.default_rng(0).normal(size=old)
    expected = [interpolate(values, place, method) for place in positions(new, old)]
    matrix = resizing.interpolation_matrix(new, old, method)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-12)


@pytest.mark.parametrize(("new", "old"), SIZES)
def test_linear_matrix_against_scipy(new, old):
    values = np.random.default_rng(0).normal(size=old)
    expected = scipy.ndimage.map_coordinates(
        values, [positions(new, old)], order=1, mode="nearest"
    )
    matrix = resizing.interpolation_matrix(new, old, "linear")
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("new", "old"), SIZES)
def test_rows_sum_to_one(new, old, method):
    matrix = resizing.interpolation_matrix(new, old, method)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("new", "old"), [(20, 10), (10, 20), (13, 9)])
def test_a_ramp_stays_a_ramp(new, old, method):
    resized = resizing.interpolation_matrix(new, old, method) @ np.arange(old)
    inner = (positions(new, old) >= 1) & (positions(new, old) <= old - 2)
    expected = positions(new, old)[inner]
    np.testing.assert_allclose(resized[inner], expected, atol=1e-12)


def test_cubic_keeps_a_parabola_and_linear_does_not():
    place = positions(20, 10)
    inner = (place >= 1) & (place <= 8)
    for method, kept in (("cubic", True), ("linear", False)):
        resized = resizing.interpolation_matrix(20, 10, method) @ np.arange(10.0) ** 2
        assert np.allclose(resized[inner], place[inner] ** 2, atol=1e-9) == kept


def test_linear_matrices_readable_by_eye():
    np.testing.assert_array_equal(
        resizing.interpolation_matrix(2, 4, "linear"),
        [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]],
    )
    np.testing.assert_array_equal(
        resizing.interpolation_matrix(4, 2, "linear"),
        [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]],
    )


def test_cubic_matrix_readable_by_eye():
    # Half way between two voxels: -1/16, 9/16, 9/16, -1/16; the border goes on.
    np.testing.assert_allclose(
        resizing.interpolation_matrix(2, 4, "cubic") * 16,
        [[8, 9, -1, 0], [0, -1, 9, 8]],
        atol=1e-12,
    )


def test_unknown_method_is_an_error():
    with pytest.raises(ValueError, match="method: expected one of .*'nearest'"):
        resizing.interpolation_matrix(2, 4, "nearest")
    with pytest.raises(ValueError, match="'nearest'"):
        resizing.resize_image(tf.zeros((1, 2, 2, 2, 1)), (4, 4, 4), method="nearest")


def reference(image, size, method):
    """Float64, axis by axis, sample by sample, channel by channel."""
    for axis, new in enumerate(size, start=1):
        place = positions(new, image.shape[axis])
        image = np.apply_along_axis(
            lambda row, place=place: [interpolate(row, p, method) for p in place],
            axis,
            image,
        )
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
def test_image_in_float32_inside_of_a_dataset(method):
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


def test_labels_readable_by_eye():
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
        nearest = np.floor(positions(new, labels.shape[axis]) + 0.5).astype(int)
        expected = np.take(expected, nearest, axis=axis)
    dataset = tf.data.Dataset.from_tensors(labels)
    dataset = dataset.map(lambda x: resizing.resize_labels(x, size))
    (resized,) = dataset
    np.testing.assert_array_equal(resized, expected, strict=True)


def test_labels_and_image_stay_together():
    """The middle of a block lies where it lay, in the image as in the labels."""
    labels = np.zeros((1, 10, 10, 10), np.uint8)
    labels[0, 2:6, 4:9, 1:4] = 1
    image = labels[..., None].astype(np.float32)
    size = (20, 15, 40)
    resized = resizing.resize_image(tf.constant(image), size).numpy()[0, ..., 0]
    nearest = resizing.resize_labels(tf.constant(labels), size).numpy()[0]
    for array in (resized, nearest):
        centre = scipy.ndimage.center_of_mass(array)
        share = (np.array(centre) + 0.5) / size
        np.testing.assert_allclose(share, [0.4, 0.65, 0.25], atol=0.02)
