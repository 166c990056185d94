import numpy as np
import pytest
import tensorflow as tf
from arrays import (
    EVERY_IMPLEMENTATION,
    assert_all_close,
    differentiate,
    differentiate_twice,
    draw,
    every_execution,
    repeat,
)

from u2net_tf.networks import ops


def with_options(*factors, implementation=None):
    return lambda inputs: ops.upsample_nearest(
        inputs, factors, implementation=implementation
    )


def test_by_hand():
    inputs = np.reshape([1.0, 2.0, 3.0, 4.0], (1, 1, 2, 2, 1))
    expected = [[1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4]]
    for implementation in ops.IMPLEMENTATIONS:
        found = ops.upsample_nearest(inputs, [2, 1, 3], implementation=implementation)
        np.testing.assert_array_equal(found[0, ..., 0], [expected, expected])


@pytest.mark.parametrize(
    ("factors", "execution"),
    every_execution([((1, 2, 3),), ((1, 1, 1),), ((2, 2, 2),)]),
)
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_repeats_voxels(factors, execution, implementation):
    inputs = draw((2, 2, 3, 4, 3))
    expected = repeat(inputs, factors)
    upstream = draw(expected.shape, 1)
    found, (gradient,) = differentiate(
        with_options(*factors, implementation=implementation),
        [inputs],
        upstream,
        execution,
    )
    np.testing.assert_array_equal(found, expected)
    # Each voxel receives the sum of the gradients of its copies.
    fd, fh, fw = factors
    copies = upstream.reshape(2, 2, fd, 3, fh, 4, fw, 3)
    np.testing.assert_allclose(gradient, copies.sum(axis=(2, 4, 6)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_dtypes(dtype, implementation):
    inputs = tf.cast(draw((1, 2, 3, 2, 2)), dtype)
    # 1 + 26 * 2⁻¹²: the small summands vanish if added one by one in half precision.
    upstream = np.full((1, 6, 9, 6, 2), 2.0**-12)
    upstream[:, ::3, ::3, ::3] += 1.0
    upstream = tf.cast(upstream, dtype)
    exact = tf.cast(upstream, tf.float64).numpy().reshape(1, 2, 3, 3, 3, 2, 3, 2)
    found, (gradient,) = differentiate(
        with_options(3, 3, 3, implementation=implementation),
        [inputs],
        upstream,
        "graph",
    )
    assert found.dtype == gradient.dtype == dtype
    np.testing.assert_array_equal(found, repeat(inputs, (3, 3, 3)))
    expected = tf.cast(exact.sum(axis=(2, 4, 6)), dtype)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("execution", ["eager", "graph"])
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_second_derivative(execution, implementation):
    inputs = draw((1, 2, 2, 1, 2))
    found = differentiate_twice(
        with_options(2, 1, 3, implementation=implementation), [inputs], execution
    )
    expected = differentiate_twice(lambda maps: repeat(maps, (2, 1, 3)), [inputs])
    assert_all_close(found, expected, atol=1e-12, rtol=1e-12)


def test_keeps_known_sizes():
    spec = tf.TensorSpec((None, 2, None, 4, 3))
    compiled = tf.function(lambda inputs: ops.upsample_nearest(inputs, (2, 2, 2)))
    outputs = compiled.get_concrete_function(spec).structured_outputs
    assert outputs.shape.as_list() == [None, 4, None, 8, 3]


@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_uses_the_implementation_of_the_context(implementation):
    with ops.use_implementation(implementation):
        function = tf.function(with_options(1, 2, 2))
        graph = function.get_concrete_function(tf.zeros((1, 2, 2, 2, 1))).graph
    types = {operation.type for operation in graph.get_operations()}
    assert ("PartitionedCall" in types) == (implementation != "plain")


@pytest.mark.parametrize("factors", [(2, 2), (2, 0, 1), (1.5, 1, 1), (1, -1, 1)])
def test_rejects_factors(factors):
    with pytest.raises(ValueError, match=r"^`factors` .*Received: factors="):
        ops.upsample_nearest(tf.zeros((1, 2, 2, 2, 1)), factors)


def test_rejects_rank_and_implementation():
    with pytest.raises(ValueError, match=r"^`inputs` .*Received: inputs.shape="):
        ops.upsample_nearest(tf.zeros((2, 2, 2, 1)), (2, 2, 2))
    with pytest.raises(
        ValueError, match=r"^`implementation` .*Received: implementation='compiled'"
    ):
        ops.upsample_nearest(
            tf.zeros((1, 2, 2, 2, 1)), (1, 1, 1), implementation="compiled"
        )
