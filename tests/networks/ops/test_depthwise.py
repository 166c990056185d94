import numpy as np
import pytest
import tensorflow as tf
import triton_interpreter
from arrays import (
    EVERY_IMPLEMENTATION,
    FOR_TRAINING,
    assert_all_close,
    correlate,
    differentiate,
    differentiate_twice,
    draw,
    errors,
    every_execution,
    repeat,
    run,
    shifted_sum,
)

from u2net_tf.networks import ops
from u2net_tf.networks.ops.implementations import xla
from u2net_tf.networks.ops.implementations.triton import operations

# Shapes of inputs and kernel. Up to four samples and more take different paths, as do
# depth taps that only see padding.
CASES = [
    ((2, 4, 5, 3, 2), (3, 3, 3)),
    ((1, 1, 5, 7, 2), (5, 1, 3)),
    ((5, 3, 5, 3, 2), (5, 3, 1)),
    ((5, 2, 3, 7, 2), (1, 3, 5)),
]


@pytest.fixture(params=["fused", pytest.param("made", marks=pytest.mark.slow)])
def repeated_map(request, monkeypatch):
    """Whether XLA fuses up-sampled inputs or materializes them."""
    fewest = {"fused": 0, "made": 2**60}[request.param]
    monkeypatch.setattr(xla, "_MIN_ELEMENTS_TO_FUSE", fewest)
    return request.param


def draw_tensors(shape, size):
    """Inputs, kernel and bias."""
    num_channels = shape[-1]
    return draw(shape), draw((*size, num_channels), 1), draw(num_channels, 2)


def with_options(**options):
    def convolve(inputs, kernel, bias=None):
        return ops.depthwise_conv3d(inputs, kernel, bias, **options)

    return convolve


# A kernel with fewer taps is compiled faster.
SMALL = ((2, 4, 5, 3, 2), (3, 1, 3))


@pytest.mark.parametrize(("shape", "size", "execution"), every_execution(CASES))
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_is_a_correlation_with_zero_padding(shape, size, execution, implementation):
    tensors, upstream = draw_tensors(shape, size), draw(shape, 3)
    found = differentiate(
        with_options(implementation=implementation), tensors, upstream, execution
    )
    outputs, (inputs_gradient, kernel_gradient, bias_gradient) = found
    inputs, kernel, bias = tensors
    expected = correlate(inputs, kernel) + bias
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12)
    expected = correlate(upstream, kernel[::-1, ::-1, ::-1])
    np.testing.assert_allclose(inputs_gradient, expected, rtol=0, atol=1e-12)
    expected = upstream.sum(axis=(0, 1, 2, 3))
    np.testing.assert_allclose(bias_gradient, expected, rtol=0, atol=1e-12)
    _, (_, expected, _) = differentiate(shifted_sum, tensors, upstream)
    np.testing.assert_allclose(kernel_gradient, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_without_bias(implementation):
    inputs, kernel, _ = draw_tensors(*SMALL)
    found, gradients = differentiate(
        with_options(implementation=implementation),
        [inputs, kernel],
        draw(inputs.shape, 3),
        "graph",
    )
    np.testing.assert_allclose(found, correlate(inputs, kernel), rtol=0, atol=1e-12)
    assert len(gradients) == 2


@pytest.mark.parametrize("unknown", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_one_unknown_size(implementation, unknown):
    shape, size = SMALL
    tensors, upstream = draw_tensors(shape, size), draw(shape, 3)
    partial_shape = [None if axis == unknown else n for axis, n in enumerate(shape)]
    specs = [tf.TensorSpec(partial_shape, tf.float64)]
    specs += [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors[1:]]

    @tf.function(autograph=False, input_signature=[specs[0], *specs])
    def differentiated(upstream, *tensors):
        return differentiate(
            with_options(implementation=implementation), tensors, upstream
        )

    outputs, gradients = differentiated(upstream, *tensors)
    expected, expected_gradients = differentiate(shifted_sum, tensors, upstream)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12)
    assert_all_close(gradients, expected_gradients, atol=1e-11)
    spec = differentiated.get_concrete_function().structured_outputs[0]
    assert spec.shape.is_compatible_with(partial_shape)
    assert spec.shape[-1] == shape[-1]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Tolerances of the compiled one, which accumulates in float32 and rounds once; the
    # plain one rounds after every depth tap.
    [("float32", 1e-6), ("float16", 2.0**-10), ("bfloat16", 2.0**-7)],
)
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_dtypes(implementation, dtype, tolerance):
    shape, size = SMALL
    rounded = [tf.cast(tensor, dtype) for tensor in draw_tensors(shape, size)]
    upstream = tf.cast(draw(shape, 3), dtype)
    found, gradients = differentiate(
        with_options(implementation=implementation), rounded, upstream, "graph"
    )
    assert {tensor.dtype.name for tensor in [found, *gradients]} == {dtype}
    exact = [tf.cast(tensor, tf.float64) for tensor in rounded]
    expected = differentiate(shifted_sum, exact, tf.cast(upstream, tf.float64))
    lengths = [float(tf.norm(tensor)) for tensor in (expected[0], *expected[1])]
    found = errors([found, *gradients], [expected[0], *expected[1]])
    factor = {"xla": 1, "xla_module": 1, "plain": 4}[implementation]
    assert max(np.divide(found, lengths)) < factor * tolerance


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_kernel_gradient_of_many_voxels(implementation, dtype):
    """A running sum in half precision stops growing."""
    shape = (1, 64, 64, 64, 2)
    tensors = [tf.ones(shape, dtype), tf.zeros((3, 3, 3, 2), dtype), tf.zeros(2, dtype)]
    _, (_, gradient, _) = differentiate(
        with_options(implementation=implementation),
        tensors,
        tf.fill(shape, tf.constant(1 / 64, dtype)),
        "graph",
    )
    voxels = np.array([63, 64, 63])
    expected = np.einsum("i,j,k->ijk", voxels, voxels, voxels)[..., np.newaxis] / 64
    assert gradient.dtype == dtype
    np.testing.assert_allclose(
        tf.cast(gradient, tf.float32), np.repeat(expected, 2, axis=-1), rtol=2.0**-7
    )


@pytest.mark.parametrize(
    ("factors", "size", "execution"),
    [
        pytest.param((1, 2, 2), (3, 1, 3), "any size", marks=pytest.mark.slow),
        # Two of three copies see another voxel, and none sees one farther away.
        ((2, 1, 3), (3, 1, 3), "graph"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ((1, 1, 1), (3, 3, 3), "graph"),
                ((2, 2, 2), (3, 3, 3), "graph"),
                ((1, 2, 2), (5, 1, 3), "eager"),
                ((2, 1, 3), (1, 3, 5), "any size"),
            )
        ),
    ],
)
def test_upsampling_first(repeated_map, factors, size, execution):
    tensors = draw_tensors((2, 2, 3, 2, 2), size)
    upstream = draw(repeat(tensors[0], factors).shape, 3)
    compiled = with_options(upsample=factors, implementation="xla")
    found, gradients = differentiate(compiled, tensors, upstream, execution)
    expected, expected_gradients = differentiate(
        lambda *tensors: shifted_sum(*tensors, upsample=factors), tensors, upstream
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert_all_close(gradients, expected_gradients, atol=1e-11)


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 1, 3)])
@pytest.mark.parametrize("execution", ["graph", "any size"])
def test_plain_upsampling_first(factors, execution):
    tensors = draw_tensors((5, 2, 3, 2, 2), (3, 1, 5))
    upstream = draw(repeat(tensors[0], factors).shape, 3)
    plain = with_options(upsample=factors, implementation="plain")
    found, gradients = differentiate(plain, tensors, upstream, execution)
    expected, expected_gradients = differentiate(
        lambda *tensors: shifted_sum(*tensors, upsample=factors), tensors, upstream
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert_all_close(gradients, expected_gradients, atol=1e-11)


def sizes_of_maps(shape, **options):
    """Number of elements of each feature map that compiled functions return."""
    specs = [tf.TensorSpec(shape), tf.TensorSpec((3, 3, 3, shape[-1]))]
    graph = (
        tf.function(with_options(**options), autograph=False)
        .get_concrete_function(*specs)
        .graph
    )
    return [
        output.shape.num_elements()
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.shape.rank == 5 and operation.type == "PartitionedCall"
    ]


def test_large_repeated_maps_are_not_materialized():
    large = xla._MIN_ELEMENTS_TO_FUSE
    fused = sizes_of_maps((1, 32, 64, 64, 2), upsample=(2, 2, 2))
    assert fused == [large]
    made = sizes_of_maps((1, 32, 64, 32, 2), upsample=(2, 2, 2))
    assert made == [large // 2, large // 2]


# `conformance/test_gradients.py` also tests those of the plain implementation.
@pytest.mark.parametrize(
    "implementation", ["xla", pytest.param("plain", marks=pytest.mark.slow)]
)
def test_gradients_are_finite_differences(implementation):
    tensors = draw_tensors((2, 1, 2, 3, 2), (3, 3, 1))
    theory, numeric = tf.test.compute_gradient(
        tf.function(with_options(implementation=implementation), autograph=False),
        list(tensors),
    )
    assert_all_close(theory, numeric, atol=1e-8)


def test_gradients_with_upsampling_are_finite_differences(repeated_map):
    tensors = draw_tensors((1, 1, 2, 3, 2), (1, 3, 3))
    theory, numeric = tf.test.compute_gradient(
        tf.function(
            with_options(implementation="xla", upsample=(1, 2, 1)), autograph=False
        ),
        list(tensors),
    )
    assert_all_close(theory, numeric, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
@pytest.mark.parametrize("execution", ["eager", "graph"])
def test_second_derivatives(implementation, execution):
    tensors = draw_tensors((2, 2, 3, 3, 2), (3, 1, 1))
    found = differentiate_twice(
        with_options(implementation=implementation), tensors, execution
    )
    expected = differentiate_twice(shifted_sum, tensors)
    assert_all_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["eager", "graph"])
def test_second_derivatives_with_upsampling(repeated_map, execution):
    factors = (1, 1, 2)
    tensors = draw_tensors((2, 1, 2, 3, 2), (1, 1, 3))
    found = differentiate_twice(with_options(upsample=factors), tensors, execution)
    expected = differentiate_twice(
        lambda *tensors: shifted_sum(*tensors, upsample=factors), tensors
    )
    assert_all_close(found, expected, atol=1e-10, rtol=1e-10)


def test_float32_is_as_exact_as_the_plain_implementation(monkeypatch):
    monkeypatch.setattr(operations, "launch", triton_interpreter.launch)
    shape = (1, 16, 32, 32, 8)
    tensors = [tensor.astype(np.float32) for tensor in draw_tensors(shape, (3, 3, 3))]
    upstream = draw(shape, 3, np.float32)

    def measure(dtype, implementation):
        return differentiate(
            with_options(implementation=implementation),
            [tensor.astype(dtype) for tensor in tensors],
            upstream.astype(dtype),
            "graph",
        )

    exact, exact_gradients = measure(np.float64, "plain")
    found = {}
    for implementation in FOR_TRAINING:
        outputs, gradients = measure(np.float32, implementation)
        found[implementation] = errors([outputs, *gradients], [exact, *exact_gradients])
    lengths = [float(tf.norm(tensor)) for tensor in [exact, *exact_gradients]]
    allowed = 1.5 * np.array(found["plain"]) + 1e-8 * np.array(lengths)
    for implementation in ("xla", "triton"):
        assert np.all(found[implementation] <= allowed), (found, lengths)


@pytest.mark.parametrize(
    ("name", "inputs", "kernel", "options"),
    [
        ("kernel", (2, 4, 4, 4, 3), (2, 3, 3, 3), {}),
        ("kernel", (2, 4, 4, 4, 3), (3, 3, 2, 3), {}),
        ("kernel", (2, 4, 4, 4, 3), (3, 3, 3, 2), {}),
        ("kernel", (2, 4, 4, 4, 3), (3, 3, 3, 3, 1), {}),
        ("inputs", (4, 4, 4, 3), (3, 3, 3, 3), {}),
        ("bias", (2, 4, 4, 4, 3), (3, 3, 3, 3), {"bias": np.zeros(2, np.float32)}),
        ("bias", (2, 4, 4, 4, 1), (3, 3, 3, 1), {"bias": np.float32(0)}),
        ("upsample", (2, 4, 4, 4, 3), (3, 3, 3, 3), {"upsample": (2, 2)}),
        ("upsample", (2, 4, 4, 4, 3), (3, 3, 3, 3), {"upsample": (2, 0, 1)}),
        ("upsample", (2, 4, 4, 4, 3), (3, 3, 3, 3), {"upsample": (1, 1, 1.5)}),
        (
            "implementation",
            (2, 4, 4, 4, 3),
            (3, 3, 3, 3),
            {"implementation": "compiled"},
        ),
    ],
)
def test_rejects(name, inputs, kernel, options):
    with pytest.raises(ValueError, match=rf"^`{name}` .*Received: {name}(\.shape)?="):
        ops.depthwise_conv3d(tf.zeros(inputs), tf.zeros(kernel), **options)


@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_uses_the_implementation_of_the_context(implementation):
    tensors = [tensor.astype(np.float32) for tensor in draw_tensors(*CASES[0])]

    def types(convolve):
        graph = (
            tf.function(convolve, autograph=False).get_concrete_function(*tensors).graph
        )
        return [operation.type for operation in graph.get_operations()]

    with ops.use_implementation(implementation):
        found = types(with_options())
    assert found == types(with_options(implementation=implementation))
    assert ("PartitionedCall" in found) == (implementation != "plain")


def test_an_impulse():
    """An impulse yields the flipped kernel: tap (i, j, k) sees voxel +(i, j, k)."""
    kernel = draw((3, 3, 3, 1))
    impulse = np.zeros((1, 3, 3, 3, 1))
    impulse[0, 1, 1, 1, 0] = 1.0
    for implementation in FOR_TRAINING:
        found = run(
            "eager", with_options(implementation=implementation), [impulse, kernel]
        )
        np.testing.assert_array_equal(found[0], kernel[::-1, ::-1, ::-1])
