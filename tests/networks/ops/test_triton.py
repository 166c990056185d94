"""The Triton kernels of convolutions; an interpreter runs them on a CPU."""

import numpy as np
import pytest
import tensorflow as tf
import triton_interpreter
from arrays import differentiate, draw, types_of_gradient

from u2net_tf.networks import ops
from u2net_tf.networks.ops.implementations.triton import operations

# Relative to the largest value: rounding of results, and of sums in float32.
TOLERANCES = {"float32": 2e-6, "bfloat16": 2e-2, "float16": 2e-3}


@pytest.fixture
def launched(monkeypatch):
    """Interprets kernels; returns the list of those that ran."""
    programs = []

    def launch(program, *arguments):
        programs.append(program.kernel.name)
        return triton_interpreter.launch(program, *arguments)

    monkeypatch.setattr(operations, "launch", launch)
    # So that small maps have several programs along the depth.
    monkeypatch.setattr(operations, "_SLICES", 2)
    monkeypatch.setattr(operations, "_GRADIENT_SLICES", 3)
    return programs


def assert_same(function, tensors, upstream, dtype, execution="eager"):
    """Compares outputs and gradients with the plain ones in float64."""
    narrow = [tf.cast(tensor, dtype) for tensor in (*tensors, upstream)]
    wide = [tf.cast(tensor, tf.float64) for tensor in narrow]
    with ops.use_implementation("triton"):
        outputs, gradients = differentiate(function, narrow[:-1], narrow[-1], execution)
    with ops.use_implementation("plain"):
        expected_outputs, expected = differentiate(function, wide[:-1], wide[-1])
    for one, other in zip(
        [outputs, *gradients], [expected_outputs, *expected], strict=True
    ):
        assert one.dtype == dtype
        found = np.asarray(tf.cast(one, tf.float64))
        scale = np.abs(other).max()
        np.testing.assert_allclose(found, other, atol=scale * TOLERANCES[dtype])


CASES = [
    ((5, 4, 7), (3, 3, 3), (1, 1, 1)),
    # More voxels in a slice than a program computes, and a single slice.
    ((1, 20, 30), (3, 3, 3), (1, 1, 1)),
    # A kernel without extent along the depth, and a map smaller than the kernel.
    ((3, 4, 5), (1, 3, 5), (1, 1, 1)),
    ((1, 2, 1), (5, 3, 3), (1, 1, 1)),
    # Up-sampled inputs.
    ((3, 4, 5), (3, 3, 3), (2, 2, 2)),
    ((4, 3, 2), (3, 3, 3), (1, 2, 2)),
    ((2, 3, 4), (5, 1, 3), (3, 1, 2)),
    ((2, 2, 3), (1, 3, 3), (3, 1, 3)),
]


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", pytest.param("float16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("size", "kernel_size", "upsample"), CASES)
def test_depthwise_convolution(launched, size, kernel_size, upsample, dtype):
    tensors = draw((2, *size, 3)), draw((*kernel_size, 3), 1), draw((3,), 2)
    upstream = draw((2, *(s * f for s, f in zip(size, upsample, strict=True)), 3), 3)

    def convolve(inputs, kernel, bias):
        return ops.depthwise_conv3d(inputs, kernel, bias, upsample=upsample)

    assert_same(convolve, tensors, upstream, dtype)
    assert launched == ["depthwise", "depthwise", "depthwise_kernel_gradient"]


def test_without_bias_in_a_graph(launched):
    tensors, upstream = (
        (draw((1, 3, 4, 5, 2)), draw((3, 3, 3, 2), 1)),
        draw((1, 3, 4, 5, 2), 2),
    )
    assert_same(ops.depthwise_conv3d, tensors, upstream, "float32", "graph")
    assert launched


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kernel_size", [(3, 3, 3), (1, 3, 3)])
def test_convolution_of_a_single_channel(launched, kernel_size, dtype):
    tensors = draw((2, 4, 5, 6, 1)), draw((*kernel_size, 1, 4), 1)
    assert_same(ops.conv3d, tensors, draw((2, 4, 5, 6, 4), 2), dtype)
    assert launched == ["depthwise", "depthwise_kernel_gradient"]


@pytest.mark.parametrize(
    ("shape", "kernel", "strides"),
    [
        ((4, 6, 8), (3, 3, 3, 5, 4), (2, 2, 2)),
        ((4, 5, 6), (3, 2, 3, 2, 3), (2, 1, 3)),
        ((3, 4, 2), (1, 3, 3, 1, 2), (1, 2, 2)),
        # Kernels that also read voxels before those of their stride.
        ((4, 6, 6), (5, 4, 6, 2, 3), (2, 2, 3)),
        # Strides that do not divide the sizes.
        ((5, 4, 7), (3, 3, 3, 2, 3), (2, 2, 2)),
        # Pointwise, with stride and without; even size; several channels.
        ((4, 6, 8), (1, 1, 1, 3, 4), (2, 2, 2)),
        ((2, 3, 4), (1, 1, 1, 3, 4), (1, 1, 1)),
        ((2, 3, 4), (2, 3, 3, 1, 4), (1, 1, 1)),
        ((2, 3, 4), (3, 3, 3, 2, 4), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize(
    "execution", ["eager", pytest.param("xla", marks=pytest.mark.slow)]
)
def test_other_convolutions(launched, shape, kernel, strides, execution):
    tensors = draw((2, *shape, kernel[3])), draw(kernel, 1)
    size = [-(-n // s) for n, s in zip(shape, strides, strict=True)]
    upstream = draw((2, *size, kernel[4]), 2)

    def convolve(inputs, weights):
        return ops.conv3d(inputs, weights, strides=strides)

    assert_same(convolve, tensors, upstream, "float32", execution)
    assert not launched


def test_pointwise_convolution_of_groups(launched):
    tensors = draw((2, 3, 4, 5, 2)), draw((2, 3, 4, 5, 3), 1), draw((1, 1, 1, 5, 4), 2)

    def convolve(one, other, weights):
        return ops.conv3d([one, other], weights)

    assert_same(convolve, tensors, draw((2, 3, 4, 5, 4), 3), "float32")
    assert not launched


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)])
def test_convolution_of_groups(launched, strides):
    tensors = draw((2, 4, 4, 6, 1)), draw((2, 4, 4, 6, 2), 1), draw((3, 3, 3, 3, 2), 2)
    upstream = draw(
        (2, *(size // s for size, s in zip((4, 4, 6), strides, strict=True)), 2), 3
    )

    def convolve(one, other, weights):
        return ops.conv3d([one, other], weights, strides=strides)

    assert_same(convolve, tensors, upstream, "float32")
    assert not launched


@pytest.mark.parametrize(
    ("strides", "sizes", "own"),
    [((2, 2, 2), (4, 4, 4), True), ((2, 2, 2), (4, 5, 4), False)],
)
def test_strided_input_gradients_have_no_stride(strides, sizes, own):
    tensors = draw((1, *sizes, 2)), draw((3, 3, 3, 2, 3), 1)

    def convolve(inputs, weights):
        return ops.conv3d(inputs, weights, strides=strides, implementation="triton")

    types = types_of_gradient(convolve, tensors)
    assert ("Conv3DBackpropInputV2" in types) != own
    assert ("BatchMatMulV2" in types) == own


class TestUnsupported:
    """What kernels do not support is left to "xla_module"."""

    @pytest.fixture(autouse=True)
    def without_kernels(self, monkeypatch):
        def launch(*arguments):
            raise AssertionError("a kernel was launched")

        monkeypatch.setattr(operations, "launch", launch)

    def test_float64(self):
        tensors = draw((1, 2, 3, 4, 2)), draw((3, 3, 3, 2), 1)
        upstream = draw((1, 4, 6, 8, 2), 2)

        def convolve(inputs, kernel, implementation="triton"):
            return ops.depthwise_conv3d(
                inputs, kernel, upsample=(2, 2, 2), implementation=implementation
            )

        outputs, gradients = differentiate(convolve, tensors, upstream)
        expected_outputs, expected = differentiate(
            lambda *tensors: convolve(*tensors, "xla_module"), tensors, upstream
        )
        np.testing.assert_array_equal(outputs, expected_outputs)
        for one, other in zip(gradients, expected, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_unknown_sizes(self):
        tensors = draw((1, 2, 3, 4, 1), dtype="f"), draw((3, 3, 3, 1, 2), 1, "f")
        upstream = draw((1, 2, 3, 4, 2), 2, "f")

        def convolve(inputs, kernel):
            maps = ops.conv3d(inputs, tensors[1], implementation="triton")
            return ops.depthwise_conv3d(maps, kernel, implementation="triton")

        kernel = draw((3, 3, 3, 2), 3, "f")
        outputs, _ = differentiate(convolve, [tensors[0], kernel], upstream, "any size")
        maps = ops.conv3d(*tensors, implementation="plain")
        expected = ops.depthwise_conv3d(maps, kernel, implementation="plain")
        np.testing.assert_allclose(outputs, expected, atol=1e-5)

    @pytest.mark.parametrize("unknown", [0, 1])
    @pytest.mark.parametrize(
        "gradient",
        [operations.depthwise_input_gradient, operations.depthwise_kernel_gradient],
    )
    def test_one_of_unknown_size(self, unknown, gradient):
        shapes = [[1, 2, 3, 4, 2], [1, 2, 3, 4, 2]]
        shapes[unknown] = [None] * 4 + [2]
        kernel = tf.ones((3, 3, 3, 2))
        tf.function(
            lambda inputs, upstream: gradient(inputs, upstream, kernel, (1, 1, 1)),
            autograph=False,
        ).get_concrete_function(*map(tf.TensorSpec, shapes))


def test_taps_of_repeated_voxels_are_added_in_float32():
    """In bfloat16, 1 + 1/256 is 1."""
    taps = tf.constant([1.0, 1 / 256, 1.0], tf.bfloat16)
    gathered = operations._adjoint_kernel(taps[None, None, :, None], (1, 1, 2))
    assert gathered.dtype == tf.float32
    np.testing.assert_array_equal(
        gathered[0, 0, :, 0], [1, 1 + 1 / 256, 1 + 1 / 256, 1]
    )
