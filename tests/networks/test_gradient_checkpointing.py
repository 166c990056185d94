import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.blocks import DecoderBlock, EncoderBlock
from u2net_tf.networks.gradient_checkpointing import (
    GRADIENT_CHECKPOINTING,
    call_checkpointed,
    check_gradient_checkpointing,
)
from u2net_tf.networks.u2net import U2Net

# "export" has no gradients.
FOR_TRAINING = [name for name in ops.IMPLEMENTATIONS if name != "export"]
EXECUTIONS = {
    "eager": lambda function: function,
    "graph": tf.function(autograph=False),
    "xla": tf.function(jit_compile=True, autograph=False),
}


# Operations keep equally few feature maps with either: see `TestKeptFeatureMaps`.
@pytest.fixture(params=["plain", pytest.param("xla", marks=pytest.mark.slow)])
def each_implementation(request):
    with ops.use_implementation(request.param):
        yield


def draw(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def variable(shape, seed):
    return keras.Variable(draw(shape, seed), dtype="float64")


def differentiate(function, tensors, variables=()):
    """Returns Σ outputs³, and its gradients by the tensors and the variables."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(function(*tensors) ** 3)
    sources = [*tensors, *(variable.value for variable in variables)]
    return total, *tape.gradient(
        total, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


class TestCallCheckpointed:
    weights = variable((3, 3), seed=1), variable((3, 3), seed=2), variable((3,), seed=3)
    tensors = draw((4, 3)), draw((4, 3), seed=4)

    def function(self, first, second):
        """Reads two of the variables, one of them twice."""
        shared, own, _ = self.weights
        hidden = tf.tanh(first @ shared.value)
        return tf.sin(hidden @ own.value + second) @ shared.value

    def checkpointed(self, first, second):
        return call_checkpointed(self.function, self.weights, first, second)

    @pytest.mark.parametrize("execution", EXECUTIONS)
    def test_values_and_gradients(self, execution):
        """The gradient of a variable that is not used is zero."""
        found = EXECUTIONS[execution](
            lambda *tensors: differentiate(self.checkpointed, tensors, self.weights)
        )(*self.tensors)
        expected = differentiate(self.function, self.tensors, self.weights)
        assert_equal(found, expected)
        np.testing.assert_array_equal(found[-1], np.zeros(3))
        assert all(np.any(gradient) for gradient in found[:-1])

    @pytest.mark.parametrize("execution", EXECUTIONS)
    def test_two_in_succession(self, execution):
        """Both use the same variables, whose gradients are added."""

        def twice(function):
            return lambda *tensors: function(function(*tensors), tensors[0])

        found = EXECUTIONS[execution](
            lambda *tensors: differentiate(
                twice(self.checkpointed), tensors, self.weights
            )
        )(*self.tensors)
        expected = differentiate(twice(self.function), self.tensors, self.weights)
        assert_equal(found, expected)

    def test_input_without_gradient(self):
        def function(first, second):
            return call_checkpointed(lambda x, y: x * x, [], first, second)

        _, first, second = differentiate(function, self.tensors)
        np.testing.assert_allclose(first, 6 * self.tensors[0] ** 5, rtol=1e-12)
        np.testing.assert_array_equal(second, np.zeros((4, 3)))

    @pytest.mark.parametrize("execution", ["eager", "graph"])
    def test_second_derivative(self, execution):
        def second(function):
            def run(tensor):
                with tf.GradientTape() as outer:
                    outer.watch(tensor)
                    _, first = differentiate(function, [tensor])
                return outer.gradient(first, tensor)

            return run

        found = EXECUTIONS[execution](
            second(lambda x: call_checkpointed(tf.sin, [], x))
        )(self.tensors[0])
        expected = second(tf.sin)(self.tensors[0])
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("execution", ["eager", "graph"])
    def test_calls_the_function_again_for_gradients(self, execution):
        calls = []

        def function(x):
            calls.append(x)
            return tf.sin(x)

        x = self.tensors[0]
        EXECUTIONS[execution](lambda x: call_checkpointed(function, [], x))(x)
        assert len(calls) == 1
        EXECUTIONS[execution](
            lambda x: differentiate(lambda x: call_checkpointed(function, [], x), [x])
        )(x)
        assert len(calls) == 3

    def test_missing_variable(self):
        """A variable that is not passed would silently have no gradient."""
        shared, own, bias = self.weights
        with pytest.raises(TypeError, match="variables"):
            differentiate(
                lambda *tensors: call_checkpointed(
                    self.function, [shared, bias], *tensors
                ),
                self.tensors,
                [own],
            )


def sine(tensor, counts):
    """Counts its executions. TensorFlow may skip it if the result is not needed."""

    def count(x):
        counts.append(x)
        return np.sin(x)

    @tf.custom_gradient
    def run(x):
        outputs = tf.numpy_function(count, [x], x.dtype, stateful=False)
        outputs.set_shape(x.shape)
        return outputs, lambda upstream: upstream * tf.cos(x)

    return run(tensor)


def test_number_of_recomputations():
    """A function is called once forward and once for a gradient that needs it."""
    inner, outer = [], []

    def function(x):
        return sine(sine(x, inner) + 1.0, outer)

    @tf.function
    def score(x):
        return differentiate(lambda x: call_checkpointed(function, [], x), [x])

    found = score(draw((4,)))
    assert (len(inner), len(outer)) == (2, 1)
    expected = differentiate(lambda x: tf.sin(tf.sin(x) + 1.0), [draw((4,))])
    assert_equal(found, expected)


def test_eager_tape_does_not_keep_inner_tensors():
    inside = []

    def function(x):
        hidden = tf.sin(x)
        inside.append(weakref.ref(hidden))
        return tf.cos(hidden)

    x = draw((4,))
    for call in (function, lambda x: call_checkpointed(function, [], x)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = call(x)
    assert [hidden() is not None for hidden in inside] == [False, False]
    assert tape.gradient(outputs, x) is not None


def trace(function, tensors):
    """Traces a forward pass and, with a given upstream gradient, a backward pass.

    Returns:
        The operations of each pass, and the placeholders of `tensors`.
    """
    inputs, passes = [], []

    @tf.function(autograph=False)
    def step(upstream, *tensors):
        inputs.extend(tensors)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(*tensors)
        passes.append(set(outputs.graph.get_operations()))
        gradients = tape.gradient(outputs, tensors, output_gradients=upstream)
        passes.append(set(outputs.graph.get_operations()) - passes[0])
        return gradients

    step.get_concrete_function(function(*tensors), *tensors)
    return *passes, inputs


def source(tensor):
    """Follows operations that do not change values back to their source."""
    while tensor.op.type in ("Identity", "IdentityN", "StopGradient", "Reshape"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def count_kept_feature_maps(function, tensors):
    """Counts the feature maps of the forward pass that the backward pass reads.

    Returns:
        The number of those that are inputs, and of those that are not.
    """
    forward, backward, inputs = trace(function, tensors)
    read = [tensor for operation in backward for tensor in operation.inputs]
    sources = [source(tensor) for tensor in read if tensor.op in forward]
    smallest = min(tensor.shape.num_elements() for tensor in tensors if is_map(tensor))
    kept = {
        tensor.ref()
        for tensor in sources
        # Neither statistics nor kernels.
        if tensor.shape.num_elements() >= smallest
        and tensor.op.type != "ReadVariableOp"
    }
    of_inputs = {tensor.ref() for tensor in inputs}
    given = {one.outputs[0].ref() for one in forward if one.type == "Placeholder"}
    return len(kept & of_inputs), len(kept - given)


def is_map(tensor):
    return tensor.shape.rank == 5


MAP = (2, 2, 3, 4, 3)


class TestKeptFeatureMaps:
    """The docstrings state these counts; `TestBlocks` shows that they can differ."""

    @pytest.mark.parametrize("implementation", FOR_TRAINING)
    def test_instance_norm(self, implementation):
        tensors = [draw(MAP), draw((3,)), draw((3,)), draw(MAP, seed=1)]

        def normalize(*tensors):
            return ops.instance_norm(
                *tensors, negative_slope=0.1, implementation=implementation
            )

        assert count_kept_feature_maps(normalize, tensors) == (2, 0)

    @pytest.mark.parametrize("implementation", FOR_TRAINING)
    def test_depthwise_conv3d(self, implementation):
        tensors = [draw(MAP), draw((3, 3, 3, 3)), draw((3,))]

        def convolve(*tensors):
            return ops.depthwise_conv3d(
                *tensors, upsample=(1, 2, 2), implementation=implementation
            )

        assert count_kept_feature_maps(convolve, tensors) == (1, 0)


def make_encoder(gradient_checkpointing, dtype="float64", adapter="separable"):
    keras.utils.set_random_seed(0)
    block = EncoderBlock(
        3,
        2,
        adapter=adapter,
        gradient_checkpointing=gradient_checkpointing,
        dtype=dtype,
    )
    block.build()
    return block


class TestBlocks:
    @pytest.mark.usefixtures("each_implementation")
    @pytest.mark.parametrize(
        ("adapter", "gradient_checkpointing", "num_inside"),
        [
            ("none", "blocks", 1),
            ("separable", "blocks", 1),
            # Inputs of two convolutions and two norms, except the block's input; or of
            # four each.
            ("none", "none", 3),
            ("separable", "none", 7),
        ],
    )
    def test_encoder_keeps_the_inputs_of_its_units(
        self, adapter, gradient_checkpointing, num_inside
    ):
        block = make_encoder(gradient_checkpointing, adapter=adapter)
        kept = count_kept_feature_maps(lambda x: block(x, domain=1), [draw(MAP)])
        assert kept == (1, num_inside)

    @pytest.mark.usefixtures("each_implementation")
    @pytest.mark.parametrize(
        "gradient_checkpointing",
        ["blocks", pytest.param("none", marks=pytest.mark.slow)],
    )
    def test_decoder_keeps_the_inputs_of_its_units(self, gradient_checkpointing):
        tensors = [draw((2, 2, 3, 2, 6)), draw((2, 2, 3, 4, 3), seed=1)]
        block = DecoderBlock(
            3,
            2,
            strides=(1, 1, 2),
            gradient_checkpointing=gradient_checkpointing,
            dtype="float64",
        )
        block.build()
        num_inputs, num_inside = count_kept_feature_maps(
            lambda *tensors: block(*tensors, domain=0), tensors
        )
        if gradient_checkpointing == "blocks":
            assert (num_inputs, num_inside) == (2, 2)
        else:
            # At least the inputs of six convolutions and six norms, except the block's
            # input.
            assert num_inside >= 11

    def test_recomputation_waits_for_the_upstream_gradient(self):
        """Every recomputed operation depends on the upstream gradient."""
        block = make_encoder("blocks", adapter="none")
        _, backward, inputs = trace(lambda x: block(x, domain=1), [draw(MAP)])
        # In the order of tracing: the arguments come first.
        upstream, *operations = inputs[0].graph.get_operations()
        assert upstream.type == "Placeholder"
        assert upstream.outputs[0] is not inputs[0]
        after = {upstream}
        for one in operations:
            before = {tensor.op for tensor in one.inputs} | set(one.control_inputs)
            if before & after:
                after.add(one)
        maps = [one for one in backward if one.type == "PartitionedCall"]
        assert maps
        assert set(maps) <= after

    @pytest.mark.parametrize("implementation", FOR_TRAINING)
    def test_recomputes_with_the_same_implementation(self, implementation):
        """Even if another one is active when the gradient is computed."""
        block = make_encoder("blocks")

        def call(inputs):
            with ops.use_implementation(implementation):
                return block(inputs, domain=0)

        for operations in trace(call, [draw(MAP)])[:2]:
            types = {operation.type for operation in operations}
            assert ("PartitionedCall" in types) == (implementation != "plain")

    @pytest.mark.usefixtures("each_implementation")
    def test_mixed_precision(self):
        """The same operations on the same numbers."""
        inputs = tf.cast(draw(MAP), tf.float32)

        def measure(gradient_checkpointing):
            block = make_encoder(gradient_checkpointing, "mixed_bfloat16")
            assert {variable.dtype for variable in block.variables} == {"float32"}
            assert block(inputs, domain=1).dtype == tf.bfloat16
            return differentiate(
                lambda x: tf.cast(block(x, domain=1), tf.float32),
                [inputs],
                block.trainable_variables,
            )

        for one, other in zip(measure("blocks"), measure("none"), strict=True):
            assert one.dtype == other.dtype == tf.float32
            assert float(tf.norm(one - other)) <= 0.01 * float(tf.norm(other))


@pytest.mark.usefixtures("each_implementation")
@pytest.mark.parametrize(
    ("execution", "adapter"),
    [
        ("eager", "series"),
        pytest.param("graph", "separable", marks=pytest.mark.slow),
    ],
)
def test_network(execution, adapter):
    inputs = draw((1, 2, 1, 4, 2))

    def measure(gradient_checkpointing):
        keras.utils.set_random_seed(0)
        network = U2Net(
            [1, 2],
            [2, 3],
            pools=(0, 0, 1),
            base_channels=2,
            adapter=adapter,
            gradient_checkpointing=gradient_checkpointing,
            dtype="float64",
        )
        network.build()
        return EXECUTIONS[execution](
            lambda x: differentiate(
                lambda x: network(x, domain=1), [x], network.trainable_variables
            )
        )(inputs)

    found, expected = measure("blocks"), measure("none")
    for one, other in zip(found, expected, strict=True):
        assert float(tf.norm(one - other)) <= 1e-10 * float(tf.norm(other))
    # The variables of the other domain are not used.
    is_nonzero = [bool(np.any(gradient)) for gradient in found]
    assert any(is_nonzero)
    assert not all(is_nonzero)


@pytest.mark.usefixtures("each_implementation")
@pytest.mark.parametrize(
    ("adapter", "gradient_checkpointing", "num_inside"),
    [
        # Outputs of the stem and seven units, and of both layers of the down-sampling.
        ("none", "blocks", 1 + 7 + 2),
        pytest.param("separable", "blocks", 1 + 7 + 2, marks=pytest.mark.slow),
        # Also one map inside the stem and three in each unit; a unit with two inputs
        # has two more.
        pytest.param(
            "separable",
            "none",
            1 + 7 + 2 + 1 + 7 * 3 + 2,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_network_keeps_the_inputs_of_stem_and_units(
    adapter, gradient_checkpointing, num_inside
):
    network = U2Net(
        [1, 2],
        [2, 3],
        pools=(0, 0, 1),
        base_channels=2,
        adapter=adapter,
        gradient_checkpointing=gradient_checkpointing,
        dtype="float64",
    )
    network.build()
    # All maps have the same size, which is larger than a kernel.
    inputs = draw((1, 2, 4, 8, 2))
    kept = count_kept_feature_maps(lambda x: network(x, domain=1), [inputs])
    assert kept == (1, num_inside)


@pytest.mark.parametrize("gradient_checkpointing", ["all", None, True])
def test_rejects(gradient_checkpointing):
    message = (
        r"`gradient_checkpointing` must be one of .*Received: gradient_checkpointing="
    )
    with pytest.raises(ValueError, match=message):
        check_gradient_checkpointing(gradient_checkpointing)
    with pytest.raises(ValueError, match=message):
        U2Net([1], [2], gradient_checkpointing=gradient_checkpointing)
    with pytest.raises(ValueError, match=message):
        EncoderBlock(2, 1, gradient_checkpointing=gradient_checkpointing)
    with pytest.raises(ValueError, match=message):
        DecoderBlock(
            2, 1, strides=(2, 2, 2), gradient_checkpointing=gradient_checkpointing
        )


def test_accepts():
    assert [
        check_gradient_checkpointing(gradient_checkpointing)
        for gradient_checkpointing in GRADIENT_CHECKPOINTING
    ] == ["none", "blocks"]
