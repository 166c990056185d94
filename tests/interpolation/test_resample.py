import numpy as np
import pytest

from u2net_tf.interpolation.resample import resample


def test_same_shape_is_the_same_array():
    array = np.random.default_rng(0).random((3, 4, 5))
    for interpolation in ("nearest", "linear", "bspline"):
        found = resample(array, (3, 4, 5), interpolation)
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline"])
@pytest.mark.parametrize("shape", [(24, 10, 40), (13, 21, 17), (24, 20, 16)])
def test_symmetric_blob_keeps_its_centre(interpolation, shape):
    z, y, x = np.meshgrid(
        *[np.linspace(-1, 1, size) for size in (24, 20, 16)], indexing="ij"
    )
    blob = np.exp(-6 * (z**2 + y**2 + x**2)).astype(np.float32)
    found = resample(blob, shape, interpolation).astype(float)
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        profile = found.sum(axis=others)
        centre = (profile * (np.arange(size) + 0.5)).sum() / profile.sum()
        # All ties of nearest voxels are resolved to the same side, which shifts the
        # centre by half a voxel of the finer grid.
        tolerance = 0.5 if interpolation == "nearest" else 1e-3
        assert centre == pytest.approx(size / 2, abs=tolerance)


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_ramp_stays_a_ramp(interpolation):
    z, y, x = np.meshgrid(
        *[np.arange(size) + 0.5 for size in (16, 24, 20)], indexing="ij"
    )
    ramp = (3 * z - 2 * y + x).astype(np.float32)
    found = resample(ramp, (32, 18, 30), interpolation)
    z, y, x = np.meshgrid(
        (np.arange(32) + 0.5) / 2,
        (np.arange(18) + 0.5) / 18 * 24,
        (np.arange(30) + 0.5) / 30 * 20,
        indexing="ij",
    )
    inner = (slice(10, 22), slice(6, 12), slice(10, 20))
    expected = 3 * z - 2 * y + x
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.02)


def test_border_is_not_darkened():
    found = resample(np.full((6, 6, 6), 5.0), (9, 13, 4), "bspline")
    np.testing.assert_allclose(found, 5, atol=1e-5)


def test_bspline_is_of_higher_order_than_linear():
    wave = np.sin(np.arange(24) / 2.5).astype(np.float32)
    array = np.broadcast_to(wave, (6, 6, 24)).copy()
    expected = np.sin(((np.arange(48) + 0.5) / 2 - 0.5) / 2.5)
    inner = slice(8, -8)
    errors = {
        name: np.abs(resample(array, (6, 6, 48), name)[3, 3] - expected)[inner].max()
        for name in ("linear", "bspline", "nearest")
    }
    assert errors["bspline"] < 0.1 * errors["linear"] < errors["nearest"]


def test_thin_volumes():
    array = np.arange(2 * 8 * 8, dtype=np.float32).reshape(2, 8, 8)
    found = resample(array, (2, 4, 4), "bspline")
    assert found.shape == (2, 4, 4)
    assert found.min() >= array.min()
    assert found.max() <= array.max()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_dtype_is_kept(dtype):
    array = np.ones((4, 4, 4), dtype)
    assert resample(array, (5, 6, 7), "nearest").dtype == dtype
