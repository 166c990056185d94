import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from u2net_tf.networks import ops

ANY_SIZE = tf.TensorSpec((None, None, None, None, 3), tf.float64)


def draw(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def correlate(inputs, kernel):
    outputs = np.empty_like(inputs)
    for sample in range(inputs.shape[0]):
        for channel in range(inputs.shape[-1]):
            outputs[sample, ..., channel] = scipy.ndimage.correlate(
                inputs[sample, ..., channel], kernel[..., channel], mode="constant"
            )
    return outputs


def shifted_sum(inputs, kernel):
    """A depthwise convolution that TensorFlow can differentiate by itself."""
    radii = [size // 2 for size in kernel.shape[:3]]
    padded = tf.pad(inputs, [[0, 0], *([r, r] for r in radii), [0, 0]])
    _, depth, height, width, _ = inputs.shape
    return sum(
        padded[:, i : i + depth, j : j + height, k : k + width] * kernel[i, j, k]
        for i, j, k in np.ndindex(*kernel.shape[:3])
    )


def gradients(function, tensors, upstream):
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = function(*tensors)
    return tape.gradient(
        outputs, tensors, output_gradients=tf.convert_to_tensor(upstream)
    )


class TestConv3D:
    @pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 1, 2)])
    def test_strides(self, strides):
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

    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    @pytest.mark.parametrize("known", [True, False])
    def test_bfloat16_gradient_of_a_shallow_map(self, depth, known):
        """oneDNN's own is wrong over a depth of 2 on some CPUs."""
        inputs = tf.constant(draw((2, depth, 4, 4, 3)), tf.bfloat16)
        kernel = tf.constant(draw((3, 3, 3, 3, 5), seed=1), tf.bfloat16)
        upstream = tf.constant(draw((2, depth, 4, 4, 5), seed=2), tf.bfloat16)
        shape = (2, *([None] * 3 if not known else inputs.shape[1:4]), 3)

        def convolve(inputs, kernel):
            return ops.conv3d(tf.ensure_shape(inputs, shape), kernel)

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.bfloat16)])
        def compiled(inputs):
            return gradients(convolve, [inputs, kernel], upstream)

        found = compiled(inputs)
        wide = [tf.cast(tensor, tf.float64) for tensor in (inputs, kernel)]
        expected = gradients(ops.conv3d, wide, tf.cast(upstream, tf.float64))
        for one, other in zip(found, expected, strict=True):
            error = tf.norm(tf.cast(one, tf.float64) - other) / tf.norm(other)
            assert error < 0.01

    def test_rank(self):
        with pytest.raises(ValueError, match=r"inputs.shape=\(2, 4, 4, 1\)"):
            ops.conv3d(tf.zeros([2, 4, 4, 1]), tf.zeros([1, 1, 1, 1, 1]))


class TestDepthwiseConv3D:
    @pytest.mark.parametrize("num", [1, 2, 3])
    @pytest.mark.parametrize("size", [(3, 3, 3), (1, 3, 5), (5, 1, 3)])
    def test_is_a_correlation_with_zero_padding(self, num, size):
        inputs, kernel = draw((num, 4, 5, 6, 3)), draw((*size, 3), seed=1)
        np.testing.assert_allclose(
            ops.depthwise_conv3d(inputs, kernel), correlate(inputs, kernel), atol=1e-12
        )

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [("float32", 1e-5), ("float16", 0.05), ("bfloat16", 0.4)],
    )
    def test_dtypes(self, dtype, tolerance):
        inputs, kernel = draw((2, 4, 5, 6, 3)), draw((3, 3, 3, 3), seed=1)
        cast = [tf.cast(tensor, dtype) for tensor in (inputs, kernel)]
        outputs = ops.depthwise_conv3d(*cast)
        assert outputs.dtype == dtype
        expected = correlate(inputs, kernel)
        np.testing.assert_allclose(
            tf.cast(outputs, tf.float64), expected, atol=tolerance
        )
        upstream = tf.cast(draw(inputs.shape, seed=2), dtype)
        found = gradients(ops.depthwise_conv3d, cast, upstream)
        assert [gradient.dtype.name for gradient in found] == [dtype, dtype]

    @pytest.mark.parametrize("num", [1, 3])
    def test_unknown_sizes(self, num):
        kernel = draw((3, 3, 3, 3), seed=1)
        compiled = tf.function(
            lambda inputs: (
                ops.depthwise_conv3d(inputs, kernel),
                tf.gradients(tf.square(ops.depthwise_conv3d(inputs, kernel)), inputs),
            ),
            input_signature=[ANY_SIZE],
        )
        inputs = draw((num, 4, 5, 6, 3))
        outputs, (gradient,) = compiled(inputs)
        expected = correlate(inputs, kernel)
        np.testing.assert_allclose(outputs, expected, atol=1e-12)
        turned = kernel[::-1, ::-1, ::-1]
        np.testing.assert_allclose(
            gradient, correlate(2 * expected, turned), atol=1e-10
        )

    @pytest.mark.parametrize("num", [1, 2])
    @pytest.mark.parametrize("size", [(3, 3, 3), (1, 3, 5), (5, 1, 3)])
    def test_gradients_are_those_of_autodiff(self, num, size):
        tensors = draw((num, 4, 3, 5, 2)), draw((*size, 2), seed=1)
        upstream = draw((num, 4, 3, 5, 2), seed=2)
        found = gradients(ops.depthwise_conv3d, tensors, upstream)
        expected = gradients(shifted_sum, tensors, upstream)
        for ours, naive in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, naive, atol=1e-12)

    def test_gradients_are_finite_differences(self):
        tensors = [draw((2, 2, 3, 2, 2)), draw((3, 3, 3, 2), seed=1)]
        theory, numeric = tf.test.compute_gradient(ops.depthwise_conv3d, tensors)
        for ours, measured in zip(theory, numeric, strict=True):
            np.testing.assert_allclose(ours, measured, atol=1e-8)

    @pytest.mark.parametrize(
        ("inputs", "kernel"),
        [
            ((2, 4, 4, 4, 3), (2, 3, 3, 3)),
            ((2, 4, 4, 4, 3), (3, 3, 3, 2)),
            ((2, 4, 4, 4, 3), (3, 3, 3, 3, 1)),
            ((4, 4, 4, 3), (3, 3, 3, 3)),
        ],
    )
    def test_rejects(self, inputs, kernel):
        with pytest.raises(ValueError, match=r"Received: "):
            ops.depthwise_conv3d(tf.zeros(inputs), tf.zeros(kernel))


def normalize(inputs, scale, offset, epsilon=1e-5, negative_slope=None):
    mean = np.mean(inputs, axis=(1, 2, 3), keepdims=True)
    variance = np.var(inputs, axis=(1, 2, 3), keepdims=True)
    outputs = (inputs - mean) / np.sqrt(variance + epsilon) * scale + offset
    if negative_slope is not None:
        outputs = np.where(outputs > 0, outputs, negative_slope * outputs)
    return outputs


class TestInstanceNorm:
    tensors = draw((2, 2, 3, 2, 3)) + 2.0, draw(3, seed=1), draw(3, seed=2)

    @pytest.mark.parametrize("epsilon", [1e-5, 0.5])
    @pytest.mark.parametrize("slope", [None, 0.25])
    def test_formula(self, epsilon, slope):
        found = ops.instance_norm(*self.tensors, epsilon=epsilon, negative_slope=slope)
        expected = normalize(*self.tensors, epsilon, slope)
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_unknown_sizes(self):
        inputs, scale, offset = self.tensors
        compiled = tf.function(
            lambda inputs: ops.instance_norm(inputs, scale, offset),
            input_signature=[ANY_SIZE],
        )
        np.testing.assert_allclose(
            compiled(inputs), normalize(*self.tensors), atol=1e-12
        )

    @pytest.mark.parametrize("epsilon", [1e-5, 0.5])
    @pytest.mark.parametrize("slope", [None, 0.25])
    def test_gradients_are_finite_differences(self, epsilon, slope):
        theory, numeric = tf.test.compute_gradient(
            lambda *tensors: ops.instance_norm(
                *tensors, epsilon=epsilon, negative_slope=slope
            ),
            list(self.tensors),
        )
        for ours, measured in zip(theory, numeric, strict=True):
            np.testing.assert_allclose(ours, measured, atol=1e-7)

    def test_gradients_are_those_of_autodiff(self):
        def naive(inputs, scale, offset):
            mean, variance = tf.nn.moments(inputs, [1, 2, 3], keepdims=True)
            outputs = (inputs - mean) * tf.math.rsqrt(variance + 0.1) * scale + offset
            return tf.where(outputs > 0, outputs, 0.25 * outputs)

        def ours(*tensors):
            return ops.instance_norm(*tensors, epsilon=0.1, negative_slope=0.25)

        upstream = draw((2, 2, 3, 2, 3), seed=3)
        found = gradients(ours, self.tensors, upstream)
        expected = gradients(naive, self.tensors, upstream)
        for custom, automatic in zip(found, expected, strict=True):
            np.testing.assert_allclose(custom, automatic, atol=1e-10)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_keeps_its_statistics_in_float32(self, dtype):
        # Squares of these values are beyond float16.
        inputs = tf.cast(draw((1, 4, 4, 4, 3)) * 1000.0, dtype)
        scale, offset = tf.ones(3, dtype), tf.zeros(3, dtype)
        outputs = ops.instance_norm(inputs, scale, offset, negative_slope=0.25)
        assert outputs.dtype == dtype
        expected = normalize(
            tf.cast(inputs, tf.float64).numpy(), 1, 0, negative_slope=0.25
        )
        np.testing.assert_allclose(tf.cast(outputs, tf.float64), expected, atol=0.02)

        def ours(*tensors):
            return ops.instance_norm(*tensors, negative_slope=0.25)

        for gradient in gradients(ours, (inputs, scale, offset), inputs):
            assert gradient.dtype == dtype

    def test_float32_adds_many_voxels_up_exactly_enough(self):
        # One running sum over 32³ voxels would be wrong by more than 1e-6.
        inputs = draw((1, 32, 32, 32, 2), dtype=np.float32) + 3.0
        found = ops.instance_norm(inputs, tf.ones(2), tf.zeros(2))
        expected = normalize(inputs.astype(np.float64), 1.0, 0.0)
        np.testing.assert_allclose(found, expected, atol=2e-6)

    @pytest.mark.parametrize(
        "shapes",
        [
            ((2, 3, 3, 3), (3,), (3,)),
            ((2, 3, 3, 3, 3), (2,), (3,)),
            ((2, 3, 3, 3, 3), (3,), (1,)),
        ],
    )
    def test_rejects(self, shapes):
        with pytest.raises(ValueError, match=r"Received: "):
            ops.instance_norm(*(tf.zeros(shape) for shape in shapes))


class TestUpsampleNearest:
    @pytest.mark.parametrize("factors", [(1, 1, 1), (2, 2, 2), (1, 2, 3)])
    def test_repeats_voxels(self, factors):
        inputs = draw((2, 2, 3, 4, 3))
        expected = inputs
        for axis, factor in enumerate(factors, start=1):
            expected = np.repeat(expected, factor, axis=axis)
        np.testing.assert_array_equal(ops.upsample_nearest(inputs, factors), expected)
        compiled = tf.function(
            lambda inputs: ops.upsample_nearest(inputs, factors),
            input_signature=[ANY_SIZE],
        )
        np.testing.assert_array_equal(compiled(inputs), expected)

    def test_gradient_adds_the_copies_up(self):
        upstream = draw((2, 2, 6, 12, 3))
        (gradient,) = gradients(
            lambda inputs: ops.upsample_nearest(inputs, (1, 2, 3)),
            [draw((2, 2, 3, 4, 3))],
            upstream,
        )
        expected = upstream.reshape(2, 2, 3, 2, 4, 3, 3).sum(axis=(3, 5))
        np.testing.assert_allclose(gradient, expected, atol=1e-12)

    def test_keeps_known_sizes(self):
        spec = tf.TensorSpec((None, 2, None, 4, 3))
        compiled = tf.function(lambda inputs: ops.upsample_nearest(inputs, (2, 2, 2)))
        outputs = compiled.get_concrete_function(spec).structured_outputs
        assert outputs.shape.as_list() == [None, 4, None, 8, 3]

    @pytest.mark.parametrize("factors", [(2, 2), (2, 0, 1), (1.5, 1, 1)])
    def test_rejects_factors(self, factors):
        with pytest.raises(ValueError, match=r"Received: factors="):
            ops.upsample_nearest(tf.zeros((1, 2, 2, 2, 1)), factors)

    def test_rejects_rank(self):
        with pytest.raises(ValueError, match=r"Received: inputs.shape="):
            ops.upsample_nearest(tf.zeros((2, 2, 2, 1)), (2, 2, 2))
