import math

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.input.augmentation import mirroring


def assert_fraction(hits, expected):
    """Checks the fraction of hits, within 4.5 standard deviations of a binomial."""
    tolerance = 4.5 * math.sqrt(expected * (1 - expected) / len(hits))
    assert abs(hits.mean() - expected) <= tolerance, (hits.mean(), expected, tolerance)


def test_mirroring_by_hand():
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


def test_mirroring_keeps_the_order_of_channels():
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
def test_only_the_given_axes_are_mirrored(axes):
    always = draw_mirrorings(axes, 1.0, 50)
    assert always.all(axis=0).tolist() == [axis in axes for axis in "zyx"]
    assert always.any(axis=0).tolist() == [axis in axes for axis in "zyx"]
    assert not draw_mirrorings(axes, 0.0, 50).any()


def test_mirroring_has_the_probability_and_is_independent_for_each_axis():
    drawn = draw_mirrorings(("z", "y", "x"), 0.3, 3000)
    for axis in range(3):
        assert_fraction(drawn[:, axis], 0.3)
    assert_fraction(drawn[:, 0] & drawn[:, 2], 0.09)
    np.testing.assert_array_equal(drawn[:20], draw_mirrorings("zyx", 0.3, 20))


@pytest.mark.parametrize("mirrored", [(False, True, False), (True, False, True)])
def test_coordinate_signs_agree_with_mirrored_arrays(mirrored):
    """A ramp that is 0 at the centre has its coordinate as its value."""
    axes = [np.arange(size) - (size - 1) / 2 for size in (2, 3, 4)]
    ramps = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
    found = mirroring.apply_mirroring(tf.constant(ramps), tf.constant(mirrored))
    signs = mirroring.coordinate_signs(tf.constant(mirrored))
    np.testing.assert_array_equal(found, ramps * signs.numpy())
