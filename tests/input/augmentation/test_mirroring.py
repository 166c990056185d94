import math

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.input.augmentation import mirroring


def assert_share(hits, share):
    """The share of hits, up to 4.5 standard deviations of a binomial."""
    tolerance = 4.5 * math.sqrt(share * (1 - share) / len(hits))
    assert abs(hits.mean() - share) <= tolerance, (hits.mean(), share, tolerance)


def test_mirroring_readable_by_eye():
    array = tf.constant([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])

    def mirror(*axes):
        return (
            mirroring.apply_mirroring(array, tf.constant(axes)).numpy().ravel().tolist()
        )

    assert mirror(False, False, False) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert mirror(True, False, False) == [5, 6, 7, 8, 1, 2, 3, 4]
    assert mirror(False, True, False) == [3, 4, 1, 2, 7, 8, 5, 6]
    assert mirror(False, False, True) == [2, 1, 4, 3, 6, 5, 8, 7]
    assert mirror(True, True, True) == [8, 7, 6, 5, 4, 3, 2, 1]


def test_mirroring_leaves_the_channels_in_their_order():
    array = tf.reshape(tf.range(2 * 3 * 4 * 2), (2, 3, 4, 2))
    dataset = tf.data.Dataset.from_tensors(array).map(
        lambda x: mirroring.apply_mirroring(x, tf.constant([True, False, True]))
    )
    (mirrored,) = dataset
    np.testing.assert_array_equal(mirrored, array.numpy()[::-1, :, ::-1])
    assert dataset.element_spec.shape == (2, 3, 4, 2)


def draw_mirrorings(axes, probability, count):
    dataset = tf.data.Dataset.range(count).map(
        lambda number: mirroring.draw_mirroring(
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


@pytest.mark.parametrize("mirrored", [(False, True, False), (True, False, True)])
def test_signs_of_coordinates_mirror_as_arrays_are_mirrored(mirrored):
    """A ramp about the centre is its own coordinate along each axis."""
    axes = [np.arange(size) - (size - 1) / 2 for size in (2, 3, 4)]
    ramps = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
    found = mirroring.apply_mirroring(tf.constant(ramps), tf.constant(mirrored))
    signs = mirroring.coordinate_signs(tf.constant(mirrored))
    np.testing.assert_array_equal(found, ramps * signs.numpy())
