import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from u2net_tf.networks import ops


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape)


def test_halves_by_hand():
    line = tf.reshape(tf.constant([0.0, 4.0]), (1, 1, 2, 1, 1))
    found = ops.upsample_linear(line, (1, 2, 1))
    np.testing.assert_array_equal(np.ravel(found), [0, 1, 3, 4])
    aligned = ops.upsample_linear(line, (1, 2, 1), align_corners=True)
    np.testing.assert_allclose(np.ravel(aligned), [0, 4 / 3, 8 / 3, 4], rtol=1e-6)


@pytest.mark.parametrize("factors", [(2, 1, 4), (1, 8, 2), (1, 1, 1)])
def test_align_corners_equals_scipy_zoom(factors):
    image = draw(3, 2, 5)
    expected = ndimage.zoom(image, factors, order=1, grid_mode=False)
    found = ops.upsample_linear(
        image[np.newaxis, ..., np.newaxis], factors, align_corners=True
    )
    np.testing.assert_allclose(found[0, ..., 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factors", [(2, 1, 4), (1, 8, 2)])
def test_default_equals_scipy_zoom_in_grid_mode(factors):
    image = draw(3, 2, 5)
    expected = ndimage.zoom(image, factors, order=1, grid_mode=True, mode="nearest")
    found = ops.upsample_linear(image[np.newaxis, ..., np.newaxis], factors)
    np.testing.assert_allclose(found[0, ..., 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
def test_unknown_size(align_corners):
    image = tf.constant(draw(2, 3, 1, 2, 4))

    @tf.function(input_signature=[tf.TensorSpec([None] * 4 + [4], tf.float64)])
    def upsample(image):
        return ops.upsample_linear(image, (2, 2, 4), align_corners=align_corners)

    expected = ops.upsample_linear(image, (2, 2, 4), align_corners=align_corners)
    np.testing.assert_allclose(upsample(image), expected, rtol=0, atol=1e-12)


def test_keeps_the_dtype():
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        image = tf.ones((1, 2, 2, 2, 1), dtype)
        assert ops.upsample_linear(image, (2, 2, 2)).dtype == dtype
        assert ops.max_pool(image, (2, 2, 2)).dtype == dtype


def test_rejects():
    with pytest.raises(ValueError, match=r"\(N, D, H, W, C\)"):
        ops.upsample_linear(tf.zeros((2, 2)), (1, 1, 1))
    with pytest.raises(ValueError, match="`factors`"):
        ops.upsample_linear(tf.zeros((1, 1, 1, 1, 1)), (2, 0, 1))


class TestMaxPool:
    @pytest.mark.parametrize("factors", [(1, 1, 1), (2, 1, 2), (1, 3, 2), (2, 3, 4)])
    def test_is_the_maximum_of_blocks(self, factors):
        image = draw(2, 4, 6, 8, 3)
        fd, fh, fw = factors
        blocks = image.reshape(2, 4 // fd, fd, 6 // fh, fh, 8 // fw, fw, 3)
        found = ops.max_pool(image, factors)
        np.testing.assert_array_equal(found, blocks.max(axis=(2, 4, 6)))

    def test_gradient_goes_only_to_the_largest_voxel(self):
        image = tf.constant(draw(1, 2, 4, 2, 3))
        with tf.GradientTape() as tape:
            tape.watch(image)
            pooled = ops.max_pool(image, (2, 2, 2))
        gradient = tape.gradient(pooled, image).numpy()
        largest = np.isin(image.numpy(), pooled.numpy())
        np.testing.assert_array_equal(gradient, largest.astype(float))

    def test_unknown_size(self):
        image = draw(2, 2, 4, 2, 3)

        @tf.function(input_signature=[tf.TensorSpec([None] * 4 + [3], tf.float64)])
        def pool(image):
            return ops.max_pool(image, (2, 2, 1))

        np.testing.assert_array_equal(pool(image), ops.max_pool(image, (2, 2, 1)))

    def test_rejects(self):
        with pytest.raises(ValueError, match=r"\(N, D, H, W, C\)"):
            ops.max_pool(tf.zeros((2, 2)), (1, 1, 1))
        with pytest.raises(ValueError, match="`factors`"):
            ops.max_pool(tf.zeros((1, 1, 1, 1, 1)), (2, 0, 1))
