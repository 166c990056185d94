import numpy as np
import pytest
import scipy.ndimage

from u2net_tf.interpolation.matrices import bspline_matrix, interpolation_matrix

SIZES = [(4, 2), (2, 4), (5, 5), (7, 3), (3, 7), (1, 4), (4, 1), (64, 40), (40, 64)]


def positions(new, old):
    """Centres of the new voxels, in units of the old ones."""
    return (np.arange(new) + 0.5) * old / new - 0.5


def interpolate(values, position, method):
    """One value, from the formula; the outermost voxels are repeated."""

    def at(index):
        return values[min(max(index, 0), len(values) - 1)]

    first = int(np.floor(position))
    t = position - first
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
    expected = [
        interpolate(values, position, method) for position in positions(new, old)
    ]
    matrix = interpolation_matrix(new, old, method)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-12)


@pytest.mark.parametrize(("new", "old"), SIZES)
def test_linear_matrix_against_scipy(new, old):
    values = np.random.default_rng(0).normal(size=old)
    expected = scipy.ndimage.map_coordinates(
        values, [positions(new, old)], order=1, mode="nearest"
    )
    matrix = interpolation_matrix(new, old, "linear")
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("new", "old"), SIZES)
def test_rows_sum_to_one(new, old, method):
    matrix = interpolation_matrix(new, old, method)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("new", "old"), [(20, 10), (10, 20), (13, 9)])
def test_a_ramp_stays_a_ramp(new, old, method):
    resized = interpolation_matrix(new, old, method) @ np.arange(old)
    inner = (positions(new, old) >= 1) & (positions(new, old) <= old - 2)
    expected = positions(new, old)[inner]
    np.testing.assert_allclose(resized[inner], expected, atol=1e-12)


def test_cubic_keeps_a_parabola_and_linear_does_not():
    position = positions(20, 10)
    inner = (position >= 1) & (position <= 8)
    for method, kept in (("cubic", True), ("linear", False)):
        resized = interpolation_matrix(20, 10, method) @ np.arange(10.0) ** 2
        assert np.allclose(resized[inner], position[inner] ** 2, atol=1e-9) == kept


def test_linear_matrices_by_hand():
    np.testing.assert_array_equal(
        interpolation_matrix(2, 4, "linear"),
        [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]],
    )
    np.testing.assert_array_equal(
        interpolation_matrix(4, 2, "linear"),
        [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]],
    )


def test_cubic_matrix_by_hand():
    # Halfway between two voxels: -1/16, 9/16, 9/16, -1/16; the border is repeated.
    np.testing.assert_allclose(
        interpolation_matrix(2, 4, "cubic") * 16,
        [[8, 9, -1, 0], [0, -1, 9, 8]],
        atol=1e-12,
    )


def test_unknown_method_is_an_error():
    with pytest.raises(ValueError, match="method: expected one of .*'nearest'"):
        interpolation_matrix(2, 4, "nearest")


@pytest.mark.parametrize(("new", "old"), [(37, 23), (5, 40)])
def test_rows_of_splines_sum_to_one(new, old):
    matrix = bspline_matrix(new, old)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


def test_splines_of_the_same_size_are_the_identity():
    np.testing.assert_array_equal(bspline_matrix(5, 5), np.eye(5))


def test_splines_against_scipy():
    """SciPy's spline through the voxels also mirrors at the outermost ones."""
    values = np.random.default_rng(0).normal(size=9)
    position = positions(7, 9)
    expected = scipy.ndimage.map_coordinates(values, [position], order=3, mode="mirror")
    np.testing.assert_allclose(bspline_matrix(7, 9) @ values, expected, atol=1e-9)
