import itertools

import numpy as np
import pytest
import tensorflow as tf
from arrays import (
    EVERY_IMPLEMENTATION,
    FOR_TRAINING,
    assert_all_close,
    differentiate,
    draw,
    errors,
    every_execution,
    run,
)

from u2net_tf.networks import ops

SHAPE = (2, 2, 3, 2, 3)


def draw_tensors(shape=SHAPE, num=3):
    """Inputs, scale, offset and, as a fourth, a residual."""
    num_channels = shape[-1]
    tensors = draw(shape) + 2.0, draw(num_channels, 1), draw(num_channels, 2)
    return (*tensors, draw(shape, 3))[:num]


def with_options(**options):
    def normalize(inputs, scale, offset, residual=None):
        return ops.instance_norm(inputs, scale, offset, residual, **options)

    return normalize


def reference(epsilon=1e-5, negative_slope=None):
    """Instance normalization that TensorFlow differentiates automatically."""

    def normalize(inputs, scale, offset, residual=0.0):
        mean = tf.reduce_mean(inputs, [1, 2, 3], keepdims=True)
        variance = tf.reduce_mean((inputs - mean) ** 2, [1, 2, 3], keepdims=True)
        outputs = (inputs - mean) / tf.sqrt(variance + epsilon) * scale + offset
        outputs = outputs + residual
        if negative_slope is None:
            return outputs
        return tf.where(outputs > 0, outputs, negative_slope * outputs)

    return normalize


def assert_like_reference(tensors, execution, *, implementation=None, **options):
    upstream = draw(tensors[0].shape, 4)
    ours = with_options(implementation=implementation, **options)
    found, gradients = differentiate(ours, tensors, upstream, execution)
    expected, expected_gradients = differentiate(
        reference(**options), tensors, upstream
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert_all_close(gradients, expected_gradients, atol=1e-11)


def test_two_voxels():
    """Mean 3 and deviation 1, so -1 and 1; times 2, plus 1, plus the residual."""
    inputs = np.reshape([2.0, 4.0], (1, 1, 1, 2, 1))
    residual = np.reshape([-3.0, 10.0], (1, 1, 1, 2, 1))
    for implementation in ops.IMPLEMENTATIONS:
        found = ops.instance_norm(
            inputs,
            [2.0],
            [1.0],
            residual,
            epsilon=0.0,
            negative_slope=0.5,
            implementation=implementation,
        )
        np.testing.assert_allclose(np.ravel(found), [-2.0, 13.0], atol=1e-12)


@pytest.mark.parametrize(
    ("num", "options", "execution"),
    every_execution(
        [
            (4, {"epsilon": 0.5, "negative_slope": 0.25}),
            (4, {}),
            (3, {"epsilon": 0.5, "negative_slope": 0.25}),
            (3, {}),
        ]
    ),
)
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_formula(num, options, execution, implementation):
    assert_like_reference(
        draw_tensors(num=num), execution, implementation=implementation, **options
    )


@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
@pytest.mark.parametrize("slope", [None, 0.0, 0.25])
def test_every_argument_has_an_effect(epsilon, slope):
    tensors = draw_tensors(num=4)
    assert_like_reference(
        tensors, "graph", implementation="plain", epsilon=epsilon, negative_slope=slope
    )


@pytest.mark.parametrize(
    "depth",
    [
        1,
        *(pytest.param(depth, marks=pytest.mark.slow) for depth in (3, 4)),
        5,
        6,
        8,
    ],
)
def test_depths(depth):
    """Up to four slices are summed at once; any depth is possible."""
    tensors = draw_tensors((2, depth, 2, 3, 2), num=4)
    assert_like_reference(tensors, "graph", implementation="xla", negative_slope=0.25)


@pytest.mark.parametrize("unknown", [0, 1, 3])
def test_one_unknown_size(unknown):
    tensors, upstream = draw_tensors(num=4), draw(SHAPE, 4)
    partial_shape = [None if axis == unknown else n for axis, n in enumerate(SHAPE)]
    map_spec = tf.TensorSpec(partial_shape, tf.float64)
    channel_spec = tf.TensorSpec(SHAPE[-1:], tf.float64)

    @tf.function(
        autograph=False,
        input_signature=[map_spec, map_spec, channel_spec, channel_spec, map_spec],
    )
    def differentiated(upstream, *tensors):
        return differentiate(with_options(negative_slope=0.25), tensors, upstream)

    outputs, gradients = differentiated(upstream, *tensors)
    expected = differentiate(reference(negative_slope=0.25), tensors, upstream)
    assert_all_close([outputs, *gradients], [expected[0], *expected[1]], atol=1e-11)
    spec = differentiated.get_concrete_function().structured_outputs[0]
    assert spec.shape.as_list() == partial_shape


# `test_formula` compares all gradients with automatic ones.
@pytest.mark.parametrize(
    ("implementation", "slope", "num"),
    [
        case
        if case == ("xla", 0.25, 4)
        else pytest.param(*case, marks=pytest.mark.slow)
        for case in itertools.product(FOR_TRAINING, (None, 0.25), (3, 4))
    ],
)
def test_gradients_are_finite_differences(num, slope, implementation):
    ours = with_options(
        negative_slope=slope, implementation=implementation, epsilon=0.5
    )
    theory, numeric = tf.test.compute_gradient(
        tf.function(ours, autograph=False), list(draw_tensors((2, 2, 1, 3, 2), num))
    )
    assert_all_close(theory, numeric, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_half_precision_computes_statistics_in_float32(implementation, dtype):
    # Squares of these values are beyond float16.
    inputs, scale, offset, residual = draw_tensors((1, 4, 4, 4, 3), num=4)
    rounded = [
        tf.cast(tensor, dtype) for tensor in (inputs * 1e3, scale, offset, residual)
    ]
    upstream = tf.cast(draw(inputs.shape, 4), dtype)
    ours = with_options(negative_slope=0.25, implementation=implementation)
    outputs, gradients = differentiate(ours, rounded, upstream, "graph")
    assert {tensor.dtype.name for tensor in [outputs, *gradients]} == {dtype}
    exact = [tf.cast(tensor, tf.float64) for tensor in rounded]
    expected, expected_gradients = differentiate(
        reference(negative_slope=0.25), exact, tf.cast(upstream, tf.float64)
    )
    # Rounded only once, at the end.
    rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    expected = [expected, *expected_gradients]
    lengths = [float(tf.norm(tensor)) for tensor in expected]
    # The gradient of the inputs is about 1e-3, where float16 is less precise.
    assert np.all(
        np.divide(errors([outputs, *gradients], expected), lengths) < rounding
    )


def measure_float32(tensors, upstream):
    """Errors of XLA in float32 (outputs first), allowed errors, and norms."""

    def measure(dtype, implementation):
        outputs, gradients = differentiate(
            with_options(negative_slope=0.25, implementation=implementation),
            [tensor.astype(dtype) for tensor in tensors],
            upstream.astype(dtype),
            "graph",
        )
        return [outputs, *gradients]

    exact = measure(np.float64, "plain")
    compiled, plain = (
        np.array(errors(measure(np.float32, implementation), exact))
        for implementation in ("xla", "plain")
    )
    lengths = np.array([float(tf.norm(tensor)) for tensor in exact])
    return compiled, 1.5 * plain + 1e-8 * lengths, lengths


@pytest.mark.parametrize("mean", [pytest.param(0.0, marks=pytest.mark.slow), 100.0])
def test_float32_is_as_exact_as_the_plain_implementation(mean):
    shape = (2, 32, 32, 32, 8)
    inputs, *others = (tensor.astype(np.float32) for tensor in draw_tensors(shape))
    residual, upstream = draw(shape, 3, np.float32), draw(shape, 4, np.float32)
    tensors = inputs + np.float32(mean), *others, residual
    compiled, allowed, lengths = measure_float32(tensors, upstream)
    assert np.all(compiled <= allowed), (compiled, allowed)
    # Both are exact: a mean of 100 costs two digits; E[x²] - E[x]² would cost four.
    assert compiled[0] < {0.0: 2e-7, 100.0: 4e-6}[mean] * lengths[0]


def test_float32_sums_over_many_voxels_are_exact_enough():
    # One running sum over 32³ voxels would be wrong by more than 1e-6.
    inputs = draw((1, 32, 32, 32, 2), dtype=np.float32) + np.float32(3.0)
    expected = reference()(inputs.astype(np.float64), np.ones(2), np.zeros(2))
    for implementation in FOR_TRAINING:
        found = ops.instance_norm(
            inputs, tf.ones(2), tf.zeros(2), implementation=implementation
        )
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("execution", ["eager", "graph"])
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
@pytest.mark.parametrize("source", [0, 1, 3])
def test_second_derivative_raises(execution, implementation, source):
    """With respect to inputs, scale and residual, on which the gradient depends."""
    tensors = draw_tensors(num=4)

    def differentiate_twice(*tensors):
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(tensors[source])
            with tf.GradientTape() as inner:
                inner.watch(tensors)
                ours = with_options(negative_slope=0.25, implementation=implementation)
                total = tf.reduce_sum(ours(*tensors) ** 2)
            (gradient,) = inner.gradient(total, tensors[:1])
        return outer.gradient(gradient, tensors[source])

    with pytest.raises(NotImplementedError, match="`instance_norm`"):
        run(execution, differentiate_twice, tensors)


@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_uses_the_implementation_of_the_context(implementation):
    def types(normalize):
        graph = (
            tf.function(normalize, autograph=False)
            .get_concrete_function(*draw_tensors())
            .graph
        )
        return [operation.type for operation in graph.get_operations()]

    with ops.use_implementation(implementation):
        found = types(with_options())
    assert found == types(with_options(implementation=implementation))
    assert ("PartitionedCall" in found) == (implementation == "xla")


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        ("inputs", [(2, 3, 3, 3), (3,), (3,)], {}),
        ("scale", [(2, 3, 3, 3, 3), (2,), (3,)], {}),
        ("offset", [(2, 3, 3, 3, 3), (3,), (1,)], {}),
        ("residual", [(2, 3, 3, 3, 3), (3,), (3,), (2, 3, 3, 3, 1)], {}),
        ("residual", [(2, 3, 3, 3, 3), (3,), (3,), (1, 3, 3, 3, 3)], {}),
        (
            "implementation",
            [(2, 3, 3, 3, 3), (3,), (3,)],
            {"implementation": "compiled"},
        ),
    ],
)
def test_rejects(name, shapes, options):
    tensors = [tf.zeros(shape) for shape in shapes]
    with pytest.raises(ValueError, match=rf"`{name}` .*Received: .*{name}(\.shape)?="):
        with_options(**options)(*tensors)
