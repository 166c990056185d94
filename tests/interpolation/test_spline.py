import numpy as np
import pytest
import SimpleITK as sitk

from u2net_tf.interpolation import spline


def run_simpleitk(array, shape):
    image = sitk.GetImageFromArray(array)
    ratios = [old / new for old, new in zip(array.shape, shape, strict=True)][::-1]
    return sitk.GetArrayFromImage(
        sitk.Resample(
            image,
            list(shape)[::-1],
            sitk.Transform(),
            sitk.sitkBSpline,
            [ratio / 2 - 0.5 for ratio in ratios],
            ratios,
            image.GetDirection(),
            0.0,
            image.GetPixelID(),
        )
    )


@pytest.mark.parametrize(
    ("shape", "new"),
    [
        ((70, 40, 45), (50, 61, 30)),
        ((33, 40, 45), (33, 40, 90)),
        ((4, 5, 6), (9, 4, 80)),
        # Larger than a block of rows and than one block of a product.
        ((40, 130, 150), (75, 100, 210)),
        ((9, 9, 9), (1, 1, 1)),
    ],
)
def test_equals_simpleitk_up_to_the_last_bit(shape, new):
    array = np.random.default_rng(0).normal(0, 500, shape).round().astype(np.float32)
    found, expected = spline.resample_bspline(array, new), run_simpleitk(array, new)
    assert found.dtype == np.float32
    last_bit = np.spacing(np.abs(array).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=last_bit)
    assert np.mean(found != expected) < 0.001


def test_input_is_not_changed_and_may_be_a_view():
    array = np.random.default_rng(0).normal(size=(12, 14, 16))
    before = array.copy()
    view = array[1:9:1, ::2, ::-1]
    found = spline.resample_bspline(view, (11, 9, 20))
    np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(
        found, spline.resample_bspline(view.copy(), (11, 9, 20))
    )
