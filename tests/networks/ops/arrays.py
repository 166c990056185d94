"""Random arrays, naive operations, and the ways to execute an operation."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from u2net_tf.networks import ops


def draw(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def repeat(inputs, factors):
    for axis, factor in enumerate(factors, start=1):
        inputs = tf.repeat(inputs, factor, axis=axis)
    return inputs


def correlate(inputs, kernel):
    outputs = np.empty_like(inputs)
    for sample in range(inputs.shape[0]):
        for channel in range(inputs.shape[-1]):
            outputs[sample, ..., channel] = scipy.ndimage.correlate(
                inputs[sample, ..., channel], kernel[..., channel], mode="constant"
            )
    return outputs


def shifted_sum(inputs, kernel, bias=0.0, *, upsample=(1, 1, 1)):
    """A depthwise convolution that TensorFlow differentiates automatically."""
    radii = [size // 2 for size in kernel.shape[:3]]
    repeated = repeat(inputs, upsample)
    padded = tf.pad(repeated, [[0, 0], *([r, r] for r in radii), [0, 0]])
    _, depth, height, width, _ = repeated.shape
    parts = [
        padded[:, i : i + depth, j : j + height, k : k + width] * kernel[i, j, k]
        for i, j, k in np.ndindex(*kernel.shape[:3])
    ]
    return tf.add_n(parts) + bias


def _any_size(tensor):
    """A spec with unknown sizes for feature maps and known ones for other tensors."""
    sizes = [None] * 4 if tensor.shape.rank == 5 else tensor.shape[:-1]
    return tf.TensorSpec([*sizes, tensor.shape[-1]], tensor.dtype)


# Ways to execute an operation.
EXECUTIONS = ("eager", "graph", "any size", "xla")


# Implementations with gradients, which "export" lacks.
FOR_TRAINING = [name for name in ops.IMPLEMENTATIONS if name != "export"]
# `test_xla_module.py` tests what is specific to "xla_module".
EVERY_IMPLEMENTATION = [
    "xla",
    "plain",
    pytest.param("xla_module", marks=pytest.mark.slow),
]


def every_execution(cases):
    """The first case with every execution, the others as a graph; the rest is slow."""
    return [
        (*case, execution)
        if case == cases[0] or execution == "graph"
        else pytest.param(*case, execution, marks=pytest.mark.slow)
        for case in cases
        for execution in EXECUTIONS
    ]


def run(execution, function, tensors):
    """Returns `function(*tensors)`."""
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    if execution == "eager":
        return function(*tensors)
    options = {"jit_compile": True} if execution == "xla" else {}
    if execution == "any size":
        options["input_signature"] = [_any_size(tensor) for tensor in tensors]
    return tf.function(function, autograph=False, **options)(*tensors)


def differentiate(function, tensors, upstream, execution="eager"):
    """Returns the outputs, and the gradients of sum(upstream * outputs)."""

    def score(upstream, *tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(*tensors)
        return outputs, *tape.gradient(outputs, tensors, output_gradients=upstream)

    outputs, *gradients = run(execution, score, [upstream, *tensors])
    return outputs, gradients


def types_of_gradient(function, tensors):
    """Types of the operations that compute the outputs and their gradients."""

    @tf.function(autograph=False)
    def score(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(*tensors)
        return tape.gradient(outputs, tensors)

    graph = score.get_concrete_function(*tensors).graph
    return {operation.type for operation in graph.get_operations()}


def differentiate_twice(function, tensors, execution="eager"):
    """Returns the gradients of a weighted sum of the gradients of Σ outputs³."""

    def score(*tensors):
        with tf.GradientTape() as outer:
            outer.watch(tensors)
            with tf.GradientTape() as inner:
                inner.watch(tensors)
                total = tf.reduce_sum(function(*tensors) ** 3)
            first = inner.gradient(total, tensors)
            weighted = [
                tf.reduce_sum(gradient * draw(gradient.shape, seed))
                for seed, gradient in enumerate(first, start=7)
            ]
            total = tf.add_n(weighted)
        return outer.gradient(total, tensors)

    return run(execution, score, tensors)


def assert_all_close(found, expected, **tolerances):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **{"rtol": 0, **tolerances})


def errors(found, exact):
    """Norms of the differences from values in float64."""
    return [
        float(tf.norm(tf.cast(one, tf.float64) - other))
        for one, other in zip(found, exact, strict=True)
    ]
