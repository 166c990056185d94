"""Results agree when run eagerly, traced, compiled with XLA and in half precision.

XLA takes seconds to compile a layer. The default run therefore has the layers and units
that others are composed of (one domain each), a block and a network; the slow run has
the rest. `networks/ops` tests the operations with every kind of compilation.
"""

import numpy as np
import pytest
import table
import tensorflow as tf
from table import TABLE

from u2net_tf.networks import ops
from u2net_tf.networks.gradient_checkpointing import GRADIENT_CHECKPOINTING

# The block has separable units and a residual connection.
ANY_SIZE = (
    "DomainNorm",
    "DomainConv3D",
    "ParallelUnit",
    "ClassGate",
)
XLA = (
    "DomainNorm",
    "DepthwiseConv3D",
    "SeparableUnit",
    "DownSample",
    "ClassGate",
)
HALF_PRECISION = (
    "DomainNorm",
    "DepthwiseConv3D",
    "DomainConv3D",
    "SeparableUnit",
    "ParallelUnit",
    "DownSample",
    "DomainConvBlock",
)


def assert_close(found, expected):
    """Compares in float64, where only the order of additions differs."""
    outputs, gradients = found
    expected_outputs, expected_gradients = expected
    np.testing.assert_allclose(outputs, expected_outputs, rtol=0, atol=1e-10)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            scale = 1 + float(tf.norm(other))
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * scale)


def differentiate_by_plain_ops(layer, domain, inputs):
    """Differentiates eagerly, without XLA."""
    with ops.use_implementation("plain"):
        return table.differentiate(layer, domain, inputs)


@pytest.mark.parametrize(
    ("name", "domain"),
    table.every_domain(quick=ANY_SIZE),
)
def test_compiled_for_any_size(name, domain):
    row = TABLE[name]
    layer, inputs = table.build(row), table.draw_inputs(row, domain)
    expected = differentiate_by_plain_ops(layer, domain, inputs)
    upstream = table.draw(expected[0].shape, seed=1)

    def any_size(tensor):
        sizes = [None] * (len(tensor.shape) - 1)
        return tf.TensorSpec((*sizes, tensor.shape[-1]), tensor.dtype)

    compiled = tf.function(
        lambda inputs, upstream: table.differentiate(layer, domain, inputs, upstream),
        autograph=False,
        input_signature=[list(map(any_size, inputs)), any_size(upstream)],
    )
    assert_close(compiled(inputs, upstream), expected)


@pytest.mark.parametrize(("name", "domain"), table.every_domain(quick=XLA))
def test_compiled_with_xla(name, domain):
    row = TABLE[name]
    layer, inputs = table.build(row), table.draw_inputs(row, domain)
    expected = differentiate_by_plain_ops(layer, domain, inputs)
    if len(layer.variables) <= 8:
        compiled = tf.function(table.differentiate, jit_compile=True, autograph=False)
        assert_close(compiled(layer, domain, inputs), expected)
    else:
        # XLA takes seconds for the gradients of larger layers, which are composed of
        # those of smaller ones.
        compiled = tf.function(table.outputs_of, jit_compile=True, autograph=False)
        outputs = compiled(layer, domain, inputs)
        np.testing.assert_allclose(outputs, expected[0], rtol=0, atol=1e-10)


# Smaller inputs than in the table: XLA takes about ten seconds for each network.
@pytest.mark.slow
@pytest.mark.parametrize("gradient_checkpointing", GRADIENT_CHECKPOINTING)
@pytest.mark.parametrize(
    "name", ["U2Net, separable", "U2Net, parallel, deep", "UNetSharp, separable"]
)
def test_network_with_gradients_compiled_with_xla(name, gradient_checkpointing):
    network = table.build(TABLE[name], gradient_checkpointing=gradient_checkpointing)
    assert network.gradient_checkpointing == gradient_checkpointing
    inputs = [table.draw((1, 2, 4, 4, 2))]
    expected = differentiate_by_plain_ops(network, 1, inputs)
    compiled = tf.function(table.differentiate, jit_compile=True, autograph=False)
    assert_close(compiled(network, 1, inputs), expected)


def relative_error(found, expected):
    """Norm of all differences divided by the norm of all expected values."""
    pairs = [
        (tf.cast(one, tf.float32), tf.cast(other, tf.float32))
        for one, other in zip(found, expected, strict=True)
        if other is not None
    ]
    differences = tf.linalg.global_norm([one - other for one, other in pairs])
    return float(differences / tf.linalg.global_norm([other for _, other in pairs]))


# `networks/ops` tests operations compiled with XLA for each type.
@pytest.mark.parametrize(
    "implementation", ["plain", pytest.param("xla", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("name", "domain"), table.every_domain(quick=HALF_PRECISION))
def test_mixed_precision(name, domain, implementation):
    row = TABLE[name]
    inputs = table.draw_inputs(row, domain, "float32")
    is_small = len(table.build(row, "float32").variables) <= 8
    for dtype, unit in ((tf.float16, 2.0**-10), (tf.bfloat16, 2.0**-7)):
        errors = []
        for seed in range(1 if is_small else 3):
            layer = table.build(row, "float32", seed)
            expected, exact_gradients = differentiate_by_plain_ops(
                layer, domain, inputs
            )
            mixed = table.build(row, f"mixed_{dtype.name}", seed)
            with ops.use_implementation(implementation):
                outputs, gradients = table.differentiate(mixed, domain, inputs)
            # A loss over half-precision logits would lose its small gradients.
            assert outputs.dtype == (dtype if row.spec is None else tf.float32)
            assert {variable.dtype for variable in mixed.variables} == {"float32"}
            own = [gradient for gradient in gradients if gradient is not None]
            assert all(tf.reduce_all(tf.math.is_finite(gradient)) for gradient in own)
            errors.append(relative_error([outputs], [expected]))
        if is_small:
            assert errors[0] < 3 * unit
            assert relative_error(gradients, exact_gradients) < 3 * unit
        else:
            # Successive norms amplify rounding errors by a factor that depends on the
            # weights, and a LeakyReLU whose input changes sign has a different slope.
            assert np.median(errors) < 32 * unit
