import numpy as np
import pytest
import tensorflow as tf
from arrays import assert_all_close, differentiate, draw, every_execution

from u2net_tf.networks import ops


@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 1, 2)])
def test_strides(strides):
    inputs, kernel = draw((2, 4, 6, 5, 3)), draw((3, 1, 3, 3, 2), seed=1)
    # 'SAME' with stride 2 over an even size starts at the first voxel.
    padded = np.pad(inputs, [(0, 0), (1, 1), (0, 0), (1, 1), (0, 0)])
    expected = np.zeros((2, 4, 6, 5, 2))
    for z, x in np.ndindex(3, 3):
        part = padded[:, z : z + 4, :, x : x + 5]
        expected += part @ kernel[z, 0, x]
    found = ops.conv3d(inputs, kernel, strides=strides)
    sd, sh, sw = strides
    first = (sd - 1, 0, 0)
    expected = expected[:, first[0] :: sd, ::sh, ::sw]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("size", [11, 12, 13, 14])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_strides_larger_than_the_kernel(kernel_size, axis, size):
    """TensorFlow is wrong for strides that are larger by 2, at some of these sizes."""
    shape, kernel_shape, strides = [2, 3, 3, 3, 3], [1, 1, 1, 3, 2], [1, 1, 1]
    shape[axis + 1], kernel_shape[axis] = size, kernel_size
    strides[axis] = stride = kernel_size + 1
    inputs, kernel = draw(shape), draw(kernel_shape, seed=1)
    num_outputs = -(-size // stride)
    padding = max((num_outputs - 1) * stride + kernel_size - size, 0)
    rows = np.moveaxis(inputs, axis + 1, 0)
    rows = np.pad(rows, [(padding // 2, kernel_size)] + [(0, 0)] * 4)
    taps = kernel.reshape(kernel_size, 3, 2)
    expected = sum(
        rows[tap : tap + size : stride][:num_outputs] @ taps[tap]
        for tap in range(kernel_size)
    )
    found = ops.conv3d(inputs, kernel, strides=strides)
    np.testing.assert_allclose(np.moveaxis(found, axis + 1, 0), expected, atol=1e-12)
    strides[axis] += 1
    with pytest.raises(
        ValueError, match=r"^`strides` must be at most 1 more than .*\)$"
    ):
        ops.conv3d(inputs, kernel, strides=strides)


@pytest.mark.parametrize(
    ("strides", "execution"), every_execution([((1, 1, 1),), ((1, 2, 2),)])
)
def test_pointwise(execution, strides):
    """A matrix product without strides, and a convolution with strides."""
    tensors = draw((2, 3, 4, 2, 3)), draw((1, 1, 1, 3, 5), seed=1)
    upstream = draw((2, 3, *np.floor_divide((4, 2), strides[1:]), 5), seed=2)

    def native(inputs, kernel):
        return tf.nn.conv3d(inputs, kernel, strides=[1, *strides, 1], padding="SAME")

    def ours(inputs, kernel):
        kernel = tf.ensure_shape(kernel, tensors[1].shape)
        return ops.conv3d(inputs, kernel, strides=strides)

    outputs, gradients = differentiate(ours, tensors, upstream, execution)
    expected, expected_gradients = differentiate(native, tensors, upstream)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12)
    assert_all_close(gradients, expected_gradients, atol=1e-12)


def test_pointwise_is_a_product_of_matrices():
    """Strides may also be a list."""
    compiled = tf.function(
        lambda inputs, kernel: ops.conv3d(inputs, kernel, strides=[1, 1, 1])
    ).get_concrete_function(
        tf.TensorSpec((None, 2, None, 4, 3)), tf.TensorSpec((1, 1, 1, 3, 5))
    )
    types = {operation.type for operation in compiled.graph.get_operations()}
    assert "MatMul" in types
    assert "Conv3D" not in types
    # Known sizes stay known.
    assert compiled.structured_outputs.shape.as_list() == [None, 2, None, 4, 5]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("known", [True, False])
def test_bfloat16_gradient_of_a_shallow_map(depth, known):
    """oneDNN's gradient is wrong for a depth of 2 on some CPUs."""
    inputs = tf.constant(draw((2, depth, 4, 4, 3)), tf.bfloat16)
    kernel = tf.constant(draw((3, 3, 3, 3, 5), seed=1), tf.bfloat16)
    upstream = tf.constant(draw((2, depth, 4, 4, 5), seed=2), tf.bfloat16)
    shape = (2, *([None] * 3 if not known else inputs.shape[1:4]), 3)

    def convolve(inputs, kernel):
        return ops.conv3d(tf.ensure_shape(inputs, shape), kernel)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.bfloat16)])
    def compiled(inputs):
        return differentiate(convolve, [inputs, kernel], upstream)[1]

    found = compiled(inputs)
    wide = [tf.cast(tensor, tf.float64) for tensor in (inputs, kernel)]
    _, expected = differentiate(ops.conv3d, wide, tf.cast(upstream, tf.float64))
    for one, other in zip(found, expected, strict=True):
        error = tf.norm(tf.cast(one, tf.float64) - other) / tf.norm(other)
        # At least a half if it is wrong. How often a kernel rounds, each time by up to
        # 2⁻⁹ of a number, depends on the CPU.
        assert error < 2.0**-6


@pytest.mark.parametrize("size", [1, 3])
def test_rank(size):
    with pytest.raises(ValueError, match=r"`inputs`.*inputs.shape=\(2, 4, 4, 1\)"):
        ops.conv3d(tf.zeros([2, 4, 4, 1]), tf.zeros([size, 1, 1, 1, 1]))


class TestParts:
    """A list of feature maps is one map, concatenated along the channels."""

    @pytest.mark.parametrize("size", [(1, 1, 1), (3, 3, 3)])
    def test_equal_one_map(self, size):
        parts = [draw((2, 3, 4, 2, 3)), draw((2, 3, 4, 2, 2), seed=1)]
        kernel = draw((*size, 5, 4), seed=2)
        expected = ops.conv3d(np.concatenate(parts, axis=-1), kernel)
        np.testing.assert_allclose(ops.conv3d(parts, kernel), expected, atol=1e-12)

    def test_with_another_number_of_channels(self):
        parts = [draw((1, 2, 2, 2, 3)), draw((1, 2, 2, 2, 3))]
        for size in ((1, 1, 1), (3, 3, 3)):
            with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
                ops.conv3d(parts, draw((*size, 5, 4)))


@pytest.mark.parametrize(
    ("kernel_size", "execution"), every_execution([((3, 1, 3),), ((1, 1, 1),)])
)
def test_bias(execution, kernel_size):
    tensors = draw((2, 3, 4, 2, 3)), draw((*kernel_size, 3, 5), seed=1), draw((5,))
    upstream = draw((2, 3, 4, 2, 5), seed=2)

    def convolve(inputs, kernel, bias):
        kernel = tf.ensure_shape(kernel, tensors[1].shape)
        return ops.conv3d(inputs, kernel, bias)

    outputs, (*gradients, bias_gradient) = differentiate(
        convolve, tensors, upstream, execution
    )
    without, expected = differentiate(ops.conv3d, tensors[:2], upstream)
    np.testing.assert_allclose(outputs, without + tensors[2], atol=1e-12)
    assert_all_close(gradients, expected, atol=1e-12)
    np.testing.assert_allclose(bias_gradient, upstream.sum((0, 1, 2, 3)), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_bias_gradient_of_many_voxels(dtype):
    """A running sum in half precision stops growing."""
    upstream = np.full((2, 32, 32, 32, 3), 1 / 64)
    tensors = [tf.zeros((2, 32, 32, 32, 1), dtype), tf.zeros((1, 1, 1, 1, 3), dtype)]
    _, (*_, gradient) = differentiate(
        ops.conv3d, [*tensors, tf.zeros(3, dtype)], tf.constant(upstream, dtype)
    )
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(tf.cast(gradient, tf.float32), 1024)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kernel_gradient_of_many_voxels(dtype, size):
    inputs = tf.ones((1, 64, 64, 64, 8), dtype)
    kernel = tf.zeros((size, size, size, 8, 2), dtype)
    upstream = tf.fill((1, 64, 64, 64, 2), tf.constant(1 / 64, dtype))
    _, (_, gradient) = differentiate(ops.conv3d, [inputs, kernel], upstream)
    voxels = np.array([64] if size == 1 else [63, 64, 63])
    expected = np.einsum("i,j,k->ijk", voxels, voxels, voxels) / 64
    assert gradient.dtype == dtype
    np.testing.assert_allclose(
        tf.cast(gradient, tf.float32),
        np.broadcast_to(expected[..., np.newaxis, np.newaxis], gradient.shape),
        rtol=2.0**-7,
    )
