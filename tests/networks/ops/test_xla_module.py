"""The implementation for steps that are one XLA module: gradients and barriers."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from arrays import (
    assert_all_close,
    differentiate,
    draw,
    every_execution,
    types_of_gradient,
)

from u2net_tf.networks import ops
from u2net_tf.networks.ops.implementations import xla_module

ours = functools.partial(ops.conv3d, implementation="xla_module")
plain = functools.partial(ops.conv3d, implementation="plain")


KINDS = [
    # Few channels; a kernel with an axis of 1, and a size below that of the kernel.
    ((2, 4, 5, 6), (3, 3, 3, 1, 4), (1, 1, 1)),
    ((5, 1, 5, 6), (3, 1, 3, 4, 2), (1, 1, 1)),
    # With strides that divide the sizes or do not, and a pointwise kernel.
    ((2, 4, 6, 8), (3, 3, 3, 5, 4), (2, 2, 2)),
    ((1, 5, 3, 7), (3, 1, 3, 2, 3), (1, 2, 2)),
    ((2, 4, 3, 6), (2, 3, 2, 3, 2), (2, 1, 3)),
    ((2, 4, 3, 5), (1, 1, 1, 3, 2), (1, 2, 2)),
]


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "execution"), every_execution(KINDS)
)
def test_gradients_are_those_of_the_convolution(shape, kernel, strides, execution):
    tensors = draw((*shape, kernel[3])), draw(kernel, seed=1)
    expected_outputs = plain(*tensors, strides=strides)
    upstream = draw(expected_outputs.shape, seed=2)

    def convolve(inputs, weights):
        return ours(inputs, tf.ensure_shape(weights, kernel), strides=strides)

    outputs, gradients = differentiate(convolve, tensors, upstream, execution)
    _, expected = differentiate(
        functools.partial(plain, strides=strides), tensors, upstream
    )
    np.testing.assert_allclose(outputs, expected_outputs, rtol=0, atol=1e-12)
    assert_all_close(gradients, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "kernel_size", "strides", "own"),
    [
        (1, 3, (1, 1, 1), True),
        (4, 3, (1, 1, 1), True),
        (5, 3, (1, 1, 1), False),
        (1, 2, (1, 1, 1), False),
        (8, 3, (2, 2, 2), True),
        (8, 3, (1, 2, 2), True),
    ],
)
def test_which_kernel_gradients_are_replaced(channels, kernel_size, strides, own):
    kernel = tf.zeros((*[kernel_size] * 3, channels, 2))
    inputs = tf.zeros((2, 4, 4, 4, channels))
    convolve = functools.partial(ours, strides=strides)
    found = types_of_gradient(convolve, [inputs, kernel])
    assert ("Conv3DBackpropFilterV2" in found) != own


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)])
def test_kernel_gradient_in_half_precision(dtype, strides):
    """Sums over many voxels do not stop growing."""
    inputs, kernel = tf.ones((1, 16, 16, 16, 1), dtype), tf.ones((3, 3, 3, 1, 2), dtype)
    upstream = tf.ones_like(plain(inputs, kernel, strides=strides))
    _, (_, gradient) = differentiate(
        functools.partial(ours, strides=strides), [inputs, kernel], upstream
    )
    assert gradient.dtype == dtype
    centre = tf.cast(gradient[1, 1, 1], tf.float32)
    np.testing.assert_array_equal(centre, upstream.shape.num_elements() / 2)


class TestBarrier:
    def test_is_in_the_module_that_xla_compiles(self):
        """See the HLO of a compiled function that calls it."""

        @tf.function(jit_compile=True, autograph=False)
        def run(first, second):
            one, other = xla_module.barrier(tf.sin(first), second)
            return one + other

        text = run.experimental_get_compiler_ir(tf.ones(3), tf.ones(3))(stage="hlo")
        assert text.count("opt-barrier(") == 1

    def test_passes_values_and_gradients_on(self):
        tensors = [tf.constant(draw((3,))), tf.constant(draw((2, 2), seed=1))]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            passed = xla_module.barrier(*tensors)
            total = tf.reduce_sum(passed[0] ** 2) + tf.reduce_sum(passed[1] ** 3)
        for one, other in zip(passed, tensors, strict=True):
            np.testing.assert_array_equal(one, other)
        assert_all_close(
            tape.gradient(total, tensors), [2 * tensors[0], 3 * tensors[1] ** 2]
        )

    @pytest.mark.parametrize(
        ("operation", "parameters", "barriers"),
        [
            # Before and after the convolution, and its input gradient.
            (ops.depthwise_conv3d, [(3, 3, 3, 2)], 4),
            # Before and after the gradient.
            (ops.instance_norm, [(2,), (2,)], 2),
        ],
        ids=["depthwise_conv3d", "instance_norm"],
    )
    def test_surrounds(self, operation, parameters, barriers):
        inputs = draw((1, 3, 3, 3, 2))
        tensors = [inputs, *(draw(shape, seed=1) for shape in parameters)]

        def count(implementation):
            @tf.function(jit_compile=True, autograph=False)
            def run(*tensors):
                function = functools.partial(operation, implementation=implementation)
                return differentiate(function, tensors, inputs)

            text = run.experimental_get_compiler_ir(*tensors)(stage="hlo")
            return text.count("opt-barrier(")

        assert [count("xla"), count("xla_module")] == [0, barriers]


@pytest.mark.parametrize("execution", ["eager", "xla"])
@pytest.mark.parametrize("num_groups", [1, 3])
def test_pointwise_products(num_groups, execution):
    groups = [draw((2, 3, 2, 5, 2 + i), seed=i) for i in range(num_groups)]
    kernel = draw((1, 1, 1, sum(group.shape[-1] for group in groups), 4), seed=9)
    upstream = draw((2, 3, 2, 5, 4), seed=10)
    found, expected = (
        differentiate(
            lambda *tensors, convolve=convolve: convolve([*tensors[:-1]], tensors[-1]),
            [*groups, kernel],
            upstream,
            execution,
        )
        for convolve in (ours, plain)
    )
    assert found[0].shape == (2, 3, 2, 5, 4)
    assert "BatchMatMulV2" in types_of_gradient(
        lambda *tensors: ours([*tensors[:-1]], tensors[-1]), [*groups, kernel]
    )
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.shape == other.shape
    assert_all_close([found[0], *found[1]], [expected[0], *expected[1]], atol=1e-12)


@pytest.mark.parametrize(
    ("size", "kernel_size"), [((3, 4, 5), (3, 3, 3)), ((1, 2, 3), (5, 1, 3))]
)
def test_depthwise_kernel_gradient(size, kernel_size):
    inputs, upstream = (draw((2, *size, 3), seed=seed) for seed in range(2))
    kernel = draw((*kernel_size, 3), seed=2)
    found, expected = (
        differentiate(
            functools.partial(ops.depthwise_conv3d, implementation=name),
            [inputs, kernel],
            upstream,
        )[1][1]
        for name in ("xla_module", "plain")
    )
    assert_all_close([found], [expected], atol=1e-12)


def test_invert_permutation():
    permutation = np.random.default_rng(0).permutation(9).astype(np.int32)
    found = xla_module.invert_permutation(tf.constant(permutation))
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found.numpy()[permutation], np.arange(9))
