import math

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from u2net_tf.input.augmentation import elastic

SIGMA = (10.0, 13.0)


def draw(sizes, seed):
    return tf.random.stateless_normal([3, *sizes], [3, seed])


def fields(positions, sigma, count, std=1.0, limits=SIGMA):
    """`count` independent (3, z, y, x) fields."""
    points = [elastic.lattice(along, limits) for along in positions]
    sizes = [len(along) for along in points]

    def make(seed):
        return elastic.displacements(
            draw(sizes, tf.cast(seed, tf.int32)),
            positions,
            points,
            tf.constant(sigma, tf.float32),
            tf.constant(std, tf.float32),
        )

    (found,) = tf.data.Dataset.range(count).map(make).batch(count)
    return found.numpy()


@pytest.mark.parametrize("sigma", [2.0, 3.0])
def test_std_is_that_of_filtered_uniform_noise(sigma):
    """As in batchgenerators, with voxels of 1 mm."""
    noise = np.random.default_rng(0).uniform(-1, 1, (128, 128, 128))
    found = scipy.ndimage.gaussian_filter(noise, sigma, mode="wrap").std() * 700
    # About (128 / 2 sigma √π)³ independent values.
    assert found == pytest.approx(elastic.displacement_std(700, sigma), rel=0.03)


def test_std_by_hand():
    expected = 750 / math.sqrt(3) / (20 * math.sqrt(math.pi)) ** 1.5
    assert elastic.displacement_std(750, 10) == pytest.approx(expected)
    assert expected == pytest.approx(2.05, abs=0.01)
    tensor = elastic.displacement_std(tf.constant(750.0), tf.constant(10.0))
    assert float(tensor) == pytest.approx(expected)


@pytest.mark.parametrize(
    "sigma", [SIGMA[0], pytest.param(SIGMA[1], marks=pytest.mark.slow)]
)
def test_displacements_have_the_std_and_correlation_everywhere(sigma):
    # Different distances along the axes, so that confusing axes is noticed.
    distances = (sigma, 2 * sigma, 1.2 * sigma)
    positions = [np.array([-d / 2, d / 2]) for d in distances]
    found = fields(positions, sigma, 3000, std=2.0)
    assert found.shape == (3000, 3, 2, 2, 2)
    np.testing.assert_allclose(found.std(axis=0), 2.0, rtol=0.06)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=0.15)
    for axis, distance in enumerate(distances):
        first, second = np.split(np.moveaxis(found, axis + 2, 0), 2)
        correlation = (first * second).mean() / 4
        expected = math.exp(-((distance / sigma) ** 2) / 4)
        assert correlation == pytest.approx(expected, abs=0.03)
    # The three components are independent.
    assert abs((found[:, 0] * found[:, 1]).mean()) < 0.1


def test_displacements_are_a_sum_of_gaussians():
    positions = [np.linspace(-7, 7, 4), np.linspace(-3, 3, 3), np.array([0.0, 5.0])]
    points = [elastic.lattice(along, (4.0, 6.0)) for along in positions]
    noise = draw([len(along) for along in points], 1).numpy().astype(np.float64)
    sigma, std = 5.0, 0.3
    expected = noise
    for axis, (along, lattice) in enumerate(zip(positions, points, strict=True)):
        gauss = np.exp(-((along[:, None] - lattice) ** 2) / (2 * sigma**2))
        gauss /= np.linalg.norm(gauss, axis=1, keepdims=True)
        expected = np.moveaxis(
            np.tensordot(gauss, expected, (1, axis + 1)), 0, axis + 1
        )
    found = elastic.displacements(
        tf.constant(noise, tf.float32), positions, points, sigma, std
    )
    np.testing.assert_allclose(found, std * expected, atol=1e-5)


def test_displacements_are_clipped_at_four_stds():
    positions = [np.zeros(1)] * 3
    points = [elastic.lattice(along, SIGMA) for along in positions]
    noise = tf.fill([3, *(len(along) for along in points)], 50.0)
    for sign in (-1, 1):
        found = elastic.displacements(sign * noise, positions, points, 10.0, 0.5)
        np.testing.assert_allclose(found, sign * 2.0, rtol=1e-6)


def test_lattice_extends_beyond_the_positions_in_steps_of_the_smallest_sigma():
    points = elastic.lattice(np.array([-20.0, 0.0, 30.0]), (10.0, 13.0))
    np.testing.assert_allclose(np.diff(points), 10)
    np.testing.assert_allclose(points.mean(), 5)
    assert points[0] <= -20 - 39
    assert points[-1] >= 30 + 39
    assert len(points) <= 15


def test_rows_have_unit_norm_at_and_beyond_the_ends():
    points = elastic.lattice(np.array([0.0, 40.0]), SIGMA)
    rows = elastic.gaussian_matrix(np.linspace(-15, 60, 40), points, tf.constant(13.0))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
