"""Parts of an operation that XLA compiles into one pass over memory.

TensorFlow takes one pass over a map for every sign of a formula; on a CPU such passes
are what a step is made of. Only formulas are compiled, not whole networks: dense
convolutions and matrix products are several times as fast outside of XLA there.
"""

import contextlib
import contextvars
import functools

import tensorflow as tf

# "compiled": islands compiled by XLA. "plain": operations of TensorFlow alone, for
# what must run where there is no XLA, such as an exported model.
ROUTES = ("compiled", "plain")
_ROUTE = contextvars.ContextVar("route", default="compiled")


def current_route():
    """Returns the route of operations that are given none."""
    return _ROUTE.get()


@contextlib.contextmanager
def use_route(route):
    """Within it, operations that are given no route take this one.

    It counts when an operation is called or traced, not when a graph is run, and in
    the thread that opened it: replicas of a `tf.distribute` strategy have their own.

    Raises:
        ValueError: If `route` is not one of `ROUTES`.
    """
    token = _ROUTE.set(check_route(route))
    try:
        yield
    finally:
        _ROUTE.reset(token)


def check_route(route):
    """Returns `route`, the current one for None.

    Raises:
        ValueError: If it is not one of `ROUTES`.
    """
    if route is None:
        return current_route()
    if route not in ROUTES:
        raise ValueError(f"`route` must be one of {ROUTES}. Received: route={route!r}")
    return route


def island(function):
    """Decorates a pure function of tensors for `compiled(route, …)` calls.

    Returns:
        A function that takes the route first. The same arguments are compiled once,
        whatever network, domain or step they come from.
    """
    # Without autograph: it takes longer to trace, and there is no control flow.
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def run(route, *args, **kwargs):
        return (compiled if route == "compiled" else function)(*args, **kwargs)

    return run


def differentiable_once(name, function):
    """Returns `function`, a gradient, such that differentiating it raises.

    A gradient that uses what its forward pass kept would be differentiated as if that
    were constant: wrong numbers without a word.

    Args:
        name: Of the operation, for the error.
        function: Of tensors.
    """

    @tf.custom_gradient
    def run(*tensors):
        def refuse(*upstream):
            raise NotImplementedError(f"`{name}` has no second derivative")

        return function(*tensors), refuse

    return run


def exact_dtype(dtype):
    """Returns the type to add up in: float64 for float64, else float32."""
    return tf.float64 if dtype == tf.float64 else tf.float32
