import numpy as np
import pytest
import scipy.interpolate
import tensorflow as tf

from u2net_tf.interpolation import kernels

OFFSETS = np.linspace(0, 1, 21)


def test_linear_by_hand():
    found = kernels.linear(np.array([0, 0.25, 1, 1.5]))
    np.testing.assert_array_equal(found, [1, 0.75, 0, 0])


def test_keys_cubic_by_hand():
    # Halfway between two voxels: 9/16 of the nearer two, -1/16 of the next two.
    found = kernels.keys_cubic(np.array([0, 0.5, 1, 1.5, 2, 3]))
    np.testing.assert_allclose(found, [1, 9 / 16, 0, -1 / 16, 0, 0], atol=1e-15)


def test_cubic_bspline_is_scipys():
    distance = np.linspace(0, 3, 61)
    basis = scipy.interpolate.BSpline.basis_element(np.arange(-2, 3), extrapolate=False)
    expected = np.nan_to_num(basis(distance))
    np.testing.assert_allclose(kernels.cubic_bspline(distance), expected, atol=1e-15)


@pytest.mark.parametrize(
    ("weights", "kernel", "taps"),
    [
        (kernels.linear_weights, kernels.linear, (0, 1)),
        (kernels.keys_cubic_weights, kernels.keys_cubic, (-1, 0, 1, 2)),
    ],
)
def test_weights_at_an_offset_are_the_kernel_s(weights, kernel, taps):
    expected = [kernel(np.abs(OFFSETS - tap)) for tap in taps]
    np.testing.assert_allclose(weights(OFFSETS), expected, atol=1e-15)
    # In a graph, in single precision.
    found = tf.function(weights)(tf.constant(OFFSETS, tf.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_methods_are_checked():
    for method in kernels.KERNELS:
        kernels.check_method(method)
    with pytest.raises(ValueError, match="method: expected one of .*: 'nearest'"):
        kernels.check_method("nearest")
