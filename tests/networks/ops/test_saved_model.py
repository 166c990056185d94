"""Operations that are saved and loaded again compute the same bits."""

import numpy as np
import pytest
import tensorflow as tf
from arrays import EVERY_IMPLEMENTATION, draw

from u2net_tf.networks import ops

SHAPE = (2, 4, 3, 5, 2)
VARIABLES = {"scale": (2,), "offset": (2,), "kernel": (3, 1, 3, 2), "bias": (2,)}


class Module(tf.Module):
    """A norm, a residual and the activation; then a convolution with bias.

    In this order every variable has an effect: a norm would remove the bias.

    Args:
        shape: Shape of the inputs and of the residual; N, D, H, W may be None.
        upsample: Up-sampling factors of the convolution.
        implementation: Implementation of both operations.
    """

    def __init__(self, shape, *, upsample, implementation):
        super().__init__()
        for seed, (name, of_variable) in enumerate(VARIABLES.items()):
            setattr(self, name, tf.Variable(draw(of_variable, seed)))

        def call(inputs, residual):
            hidden = ops.instance_norm(
                inputs,
                self.scale,
                self.offset,
                residual,
                negative_slope=0.25,
                implementation=implementation,
            )
            return ops.depthwise_conv3d(
                hidden,
                self.kernel,
                self.bias,
                upsample=upsample,
                implementation=implementation,
            )

        spec = tf.TensorSpec(shape, tf.float64)
        self.call = tf.function(call, input_signature=[spec] * 2, autograph=False)


def differentiate(module, tensors):
    """Returns the outputs, and the gradients of Σ outputs³ by tensors and variables."""
    sources = [*tensors, *(getattr(module, name) for name in VARIABLES)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = module.call(*tensors)
        total = tf.reduce_sum(outputs**3)
    return outputs, *tape.gradient(total, sources)


# The compiled implementation takes other paths if sizes are known.
@pytest.mark.parametrize(
    "sizes",
    [pytest.param([None] * 4, marks=pytest.mark.slow), SHAPE[:-1]],
    ids=["any", "known"],
)
@pytest.mark.parametrize(
    "upsample", [pytest.param((1, 1, 1), marks=pytest.mark.slow), (1, 2, 2)]
)
@pytest.mark.parametrize("implementation", EVERY_IMPLEMENTATION)
def test_outputs_and_gradients(tmp_path, sizes, upsample, implementation):
    module = Module(
        (*sizes, SHAPE[-1]), upsample=upsample, implementation=implementation
    )
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, tmp_path, options=options)
    loaded = tf.saved_model.load(tmp_path)
    tensors = [tf.constant(draw(SHAPE, seed)) for seed in (4, 5)]
    expected = differentiate(module, tensors)
    for found, other in zip(differentiate(loaded, tensors), expected, strict=True):
        assert float(tf.norm(other)) > 1.0
        np.testing.assert_array_equal(found, other)
