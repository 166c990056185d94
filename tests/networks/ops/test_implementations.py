import dataclasses
import threading
from unittest import mock

import pytest
import tensorflow as tf

from u2net_tf import losses
from u2net_tf.networks import ops
from u2net_tf.networks.gradient_checkpointing import call_checkpointed
from u2net_tf.networks.layers.channel_groups import map_channel_groups
from u2net_tf.networks.ops import implementations
from u2net_tf.networks.ops.implementations.instance_norm import differentiable_once
from u2net_tf.networks.ops.implementations.xla import xla_compiled
from u2net_tf.networks.ops.precision import accumulation_dtype
from u2net_tf.networks.u2net import U2Net


class TestUseImplementation:
    def test_default(self):
        assert ops.current_implementation() == "xla"
        assert set(ops.IMPLEMENTATIONS) == set(NAMES)

    def test_restores_what_was_before(self):
        with ops.use_implementation("plain"):
            with ops.use_implementation("xla"):
                assert ops.current_implementation() == "xla"
            assert ops.current_implementation() == "plain"
        assert ops.current_implementation() == "xla"

    def test_restores_after_an_error(self):
        with (
            pytest.raises(RuntimeError, match="inside"),
            ops.use_implementation("plain"),
        ):
            raise RuntimeError("inside")
        assert ops.current_implementation() == "xla"

    def test_rejects(self):
        message = "`implementation`.*Received: implementation='compiled'"
        with (
            pytest.raises(ValueError, match=message),
            ops.use_implementation("compiled"),
        ):
            pass
        assert ops.current_implementation() == "xla"

    def test_applies_to_its_thread_only(self):
        found = []

        def record():
            found.append(ops.current_implementation())

        with ops.use_implementation("plain"):
            thread = threading.Thread(target=record)
            thread.start()
            thread.join()
        assert found == ["xla"]

    def test_applies_when_traced_and_not_when_run(self):
        function = tf.function(lambda x: ops.upsample_nearest(x, (1, 1, 2)))
        inputs = tf.zeros((1, 1, 1, 1, 1))
        with ops.use_implementation("plain"):
            graph = function.get_concrete_function(inputs).graph
        assert function.get_concrete_function(inputs).graph is graph
        assert not has_xla(graph)


NAMES = ("xla", "plain", "xla_module", "triton", "export")


def test_check_implementation():
    check = implementations.check_implementation
    assert [check(name) for name in ops.IMPLEMENTATIONS] == list(NAMES)
    assert check(None) == "xla"
    with ops.use_implementation("plain"):
        assert check(None) == "plain"
        assert check("xla") == "xla"
        with ops.use_implementation(None):
            assert check(None) == "plain"
    with pytest.raises(ValueError, match="`implementation`.*Received: implementation="):
        check(0)


# Each operation as the network calls it, with gradients of all tensors.
SHAPE = (1, 2, 2, 2, 3)
CALLS = {
    "conv3d": lambda x: ops.conv3d(x, tf.ones((3, 3, 3, 3, 2)), tf.ones(2)),
    "conv3d_concatenated": lambda x: ops.conv3d_upsampled(
        [x, x], tf.ones((3, 3, 3, 6, 2)), factors=((1, 1, 1),) * 2
    ),
    "depthwise_conv3d": lambda x: ops.depthwise_conv3d(
        x, x[0, 0, :1, :1, tf.newaxis], upsample=(1, 1, 2)
    ),
    "repeat": lambda x: ops.upsample_nearest(x, (1, 2, 1)),
    "instance_norm": lambda x: ops.instance_norm(x, tf.ones(3), tf.zeros(3)),
    "invert_permutation": lambda x: losses.lovasz_softmax(
        tf.constant([[[[0, 1], [1, 0]]] * 2]), x[..., :2]
    ),
    "max_pool": lambda x: ops.max_pool(x, (1, 2, 1)),
    "gather_groups": lambda x: map_channel_groups(tf.sin, [x, x])[0],
    "upsample_linear": lambda x: ops.upsample_linear(x, (1, 2, 1)),
    "checkpointed": lambda x: call_checkpointed(tf.sin, [], x),
}
# Operations that compute the gradient of a call.
GRADIENTS = {
    "depthwise_input_gradient": "depthwise_conv3d",
    "depthwise_kernel_gradient": "depthwise_conv3d",
    "sum_pool": "repeat",
    "wait_for": "checkpointed",
}
FIELDS = [field.name for field in dataclasses.fields(implementations.Operations)]


@pytest.mark.parametrize("field", FIELDS)
def test_another_implementation_is_a_row_of_the_table(field):
    """It replaces one operation; the others are the plain ones."""
    plain, calls = ops.IMPLEMENTATIONS["plain"], []

    def own(*arguments):
        calls.append(arguments)
        if field == "upsample_linear":
            inputs, factors, align_corners = arguments
            assert not align_corners
            return ops.upsample_linear(inputs, factors, implementation="plain")
        return getattr(plain, field)(*arguments)

    row = dataclasses.replace(plain, **{field: own})
    call = CALLS[GRADIENTS.get(field, field)]

    def differentiate():
        inputs = tf.random.stateless_normal(SHAPE, seed=(0, 0))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = call(inputs)
        return outputs, tape.gradient(outputs, inputs)

    with ops.use_implementation("plain"):
        expected = differentiate()
    assert not calls
    with mock.patch.dict(ops.IMPLEMENTATIONS, {"another": row}):
        with ops.use_implementation("another"):
            found = differentiate()
        assert ops.current_implementation() == "xla"
    assert len(calls) == 1
    for one, other in zip(found, expected, strict=True):
        tf.debugging.assert_equal(one, other)


def test_every_operation_has_a_call():
    assert {*CALLS, *GRADIENTS} == {*FIELDS, "checkpointed"}


@pytest.mark.parametrize(
    ("name", "base", "expected"),
    [
        (
            "xla",
            "plain",
            {
                "conv3d",
                "conv3d_concatenated",
                "wait_for",
                "invert_permutation",
                "max_pool",
                "gather_groups",
                "upsample_linear",
            },
        ),
        (
            "xla_module",
            "xla",
            {
                "repeat",
                "sum_pool",
                "max_pool",
                "gather_groups",
                "upsample_linear",
            },
        ),
        (
            "triton",
            "xla_module",
            {
                "repeat",
                "sum_pool",
                "instance_norm",
                "wait_for",
                "invert_permutation",
                "max_pool",
                "gather_groups",
                "upsample_linear",
            },
        ),
        (
            "export",
            "plain",
            {
                "depthwise_input_gradient",
                "depthwise_kernel_gradient",
                "sum_pool",
                "wait_for",
                "invert_permutation",
            },
        ),
    ],
)
def test_what_an_implementation_shares_with_another(name, base, expected):
    one, other = ops.IMPLEMENTATIONS[name], ops.IMPLEMENTATIONS[base]
    same = {name for name in FIELDS if getattr(one, name) is getattr(other, name)}
    assert same == expected


def test_differentiable_once():
    once = differentiable_once("square", lambda x: x * x)
    x = tf.constant(3.0)
    assert float(once(x)) == 9.0
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = once(x)
    with pytest.raises(NotImplementedError, match="`square` has no second derivative"):
        tape.gradient(y, x)


def test_same_arguments_are_compiled_once():
    traces = []

    @xla_compiled
    def double(x):
        traces.append(x)
        return 2 * x

    first = tf.function(lambda x: double(x))
    second = tf.function(lambda x: double(x) + double(x))
    assert float(first(tf.constant(1.0))) == 2.0
    assert float(second(tf.constant(1.0))) == 4.0
    assert len(traces) == 1
    assert has_xla(first.get_concrete_function(tf.constant(1.0)).graph)


def test_accumulation_dtype():
    found = {
        dtype: accumulation_dtype(dtype)
        for dtype in (tf.float16, tf.bfloat16, tf.float32, tf.float64)
    }
    assert found.pop(tf.float64) == tf.float64
    assert set(found.values()) == {tf.float32}


def has_xla(graph):
    """Whether the graph, or a function that it calls, uses XLA."""
    definition = graph.as_graph_def()
    functions = definition.library.function
    nodes = [*definition.node, *(node for part in functions for node in part.node_def)]
    holders = [*nodes, *functions]
    return any("xla" in node.op.lower() for node in nodes) or any(
        holder.attr[name].b
        for holder in holders
        for name in ("_XlaMustCompile", "_XlaCompile")
        if name in holder.attr
    )


@pytest.mark.parametrize(
    "gradient_checkpointing", [pytest.param("none", marks=pytest.mark.slow), "blocks"]
)
def test_only_the_plain_implementation_has_no_xla(gradient_checkpointing):
    network = U2Net(
        [2],
        [3],
        pools=(0, 1, 1),
        base_channels=2,
        gradient_checkpointing=gradient_checkpointing,
    )
    network.build()

    def trace(layer, implementation):
        """The graph of the gradients with respect to all variables."""
        variables = [variable.value for variable in layer.trainable_variables]

        def differentiate(inputs):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(inputs, domain=0) ** 2)
            return tape.gradient(loss, variables)

        with ops.use_implementation(implementation):
            traced = tf.function(differentiate, autograph=False)
            return traced.get_concrete_function(tf.TensorSpec((1, 2, 2, 4, 2))).graph

    assert not has_xla(trace(network, "plain"))
    # XLA would be found; a part of the network is faster to trace.
    assert has_xla(trace(network.stem, "xla"))
