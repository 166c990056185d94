"""Gradients with respect to every input and variable equal finite differences.

The default run uses the plain implementation, which is not compiled.
`test_execution.py` compares compiled gradients with plain ones; `make test-slow` also
compares compiled gradients with finite differences.
"""

import numpy as np
import pytest
import table
import tensorflow as tf
from table import TABLE

from u2net_tf.networks import ops

STEP = 1e-5
# `test_golden.py` compares every gradient of the separable network with PyTorch's.
QUICK = [name for name in table.QUICK_ROWS if name != "U2Net, separable"]


@pytest.mark.parametrize(
    "implementation", ["plain", pytest.param("xla", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("name", "domain"), table.every_domain(quick=QUICK))
def test_gradients_are_finite_differences(name, domain, implementation):
    row = TABLE[name]
    layer = table.build(row)
    inputs = [tf.Variable(tensor) for tensor in table.draw_inputs(row, domain)]
    tensors = [tensor.value() for tensor in inputs]
    with ops.use_implementation(implementation):
        outputs, gradients = table.differentiate(layer, domain, tensors)
    upstream = table.draw(outputs.shape, seed=1)

    @tf.function(autograph=False)
    def total():
        tensors = [tensor.value() for tensor in inputs]
        outputs = table.outputs_of(layer, domain, tensors)
        return tf.reduce_sum(upstream * outputs)

    with ops.use_implementation("plain"):
        total()

    def slope(variable, direction):
        value = variable.numpy()
        ends = []
        for sign in (1, -1):
            variable.assign(value + sign * STEP * direction)
            ends.append(float(total()))
        variable.assign(value)
        return (ends[0] - ends[1]) / (2 * STEP)

    others = {
        variable.path
        for other in range(row.num_domains)
        for variable in layer.domain_variables(other)
        if other != domain
    }
    generator = np.random.default_rng(2)
    variables = [*inputs, *layer.variables]
    for variable, gradient in zip(variables, gradients, strict=True):
        path = getattr(variable, "path", "input")
        assert (gradient is None) == (path in others), path
        if gradient is None:
            continue
        # Rounding errors are relative to the norm of the gradient; the added 1 allows
        # for a gradient of 0, as that of a bias right before a norm.
        tolerance = 5e-7 * (1 + np.linalg.norm(gradient))
        for _ in range(3 if path == "input" else 1):
            direction = generator.normal(size=variable.shape)
            direction /= np.linalg.norm(direction)
            np.testing.assert_allclose(
                np.sum(gradient * direction),
                slope(variable, direction),
                rtol=0,
                atol=tolerance,
                err_msg=path,
            )
