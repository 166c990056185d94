import threading

import pytest
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.ops import implementations
from u2net_tf.networks.u2net import U2Net


class TestUseRoute:
    def test_default(self):
        assert ops.current_route() == "compiled"
        assert set(ops.ROUTES) == {"compiled", "plain"}

    def test_restores_what_was_before(self):
        with ops.use_route("plain"):
            with ops.use_route("compiled"):
                assert ops.current_route() == "compiled"
            assert ops.current_route() == "plain"
        assert ops.current_route() == "compiled"

    def test_restores_after_an_error(self):
        with pytest.raises(RuntimeError, match="inside"), ops.use_route("plain"):
            raise RuntimeError("inside")
        assert ops.current_route() == "compiled"

    def test_rejects(self):
        with (
            pytest.raises(ValueError, match="`route`.*Received: route='xla'"),
            ops.use_route("xla"),
        ):
            pass
        assert ops.current_route() == "compiled"

    def test_counts_in_its_thread_alone(self):
        found = []
        with ops.use_route("plain"):
            thread = threading.Thread(target=lambda: found.append(ops.current_route()))
            thread.start()
            thread.join()
        assert found == ["compiled"]

    def test_counts_when_traced_and_not_when_run(self):
        function = tf.function(lambda maps: ops.upsample_nearest(maps, (1, 1, 2)))
        inputs = tf.zeros((1, 1, 1, 1, 1))
        with ops.use_route("plain"):
            graph = function.get_concrete_function(inputs).graph
        assert function.get_concrete_function(inputs).graph is graph
        assert not has_xla(graph)


def test_check_route():
    assert [implementations.check_route(route) for route in ops.ROUTES] == list(
        ops.ROUTES
    )
    assert implementations.check_route(None) == "compiled"
    with ops.use_route("plain"):
        assert implementations.check_route(None) == "plain"
        assert implementations.check_route("compiled") == "compiled"
    with pytest.raises(ValueError, match="`route`.*Received: route=0"):
        implementations.check_route(0)


def test_differentiable_once():
    once = implementations.differentiable_once("square", lambda x: x * x)
    x = tf.constant(3.0)
    assert float(once(x)) == 9.0
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = once(x)
    with pytest.raises(NotImplementedError, match="`square` has no second derivative"):
        tape.gradient(y, x)


def test_same_arguments_are_compiled_once():
    traces = []

    @implementations.island
    def double(x):
        traces.append(x)
        return 2 * x

    first = tf.function(lambda x: double("compiled", x))
    second = tf.function(lambda x: double("compiled", x) + double("compiled", x))
    assert float(first(tf.constant(1.0))) == 2.0
    assert float(second(tf.constant(1.0))) == 4.0
    assert len(traces) == 1
    # Without compiling, it is part of each caller.
    assert float(double("plain", tf.constant(1.0))) == 2.0
    assert len(traces) == 2


def test_exact_dtype():
    exact = {
        dtype: implementations.exact_dtype(dtype)
        for dtype in (tf.float16, tf.bfloat16, tf.float32, tf.float64)
    }
    assert exact.pop(tf.float64) == tf.float64
    assert set(exact.values()) == {tf.float32}


def has_xla(graph):
    """Whether something in the graph, or in a function that it calls, is XLA's."""
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
    "recompute", [pytest.param("none", marks=pytest.mark.slow), "blocks"]
)
def test_only_the_plain_route_has_no_xla(recompute):
    network = U2Net([2], [3], pools=(0, 1, 1), base_channels=2, recompute=recompute)
    network.build()

    def trace(layer, route):
        """The graph of the gradients in all of its variables."""
        variables = [variable.value for variable in layer.trainable_variables]

        def differentiate(inputs):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(inputs, domain=0) ** 2)
            return tape.gradient(loss, variables)

        with ops.use_route(route):
            traced = tf.function(differentiate, autograph=False)
            return traced.get_concrete_function(tf.TensorSpec((1, 2, 2, 4, 2))).graph

    assert not has_xla(trace(network, "plain"))
    # That it would be found: of a part, which is traced sooner.
    assert has_xla(trace(network.stem, "compiled"))
