import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.networks import blocks, conv_units, layers, ops

pytestmark = pytest.mark.usefixtures("plain_implementation")


def draw(channels, dtype="float32", size=(4, 4, 4)):
    numbers = np.random.default_rng(0).normal(size=(2, *size, channels))
    return tf.constant(numbers, dtype)


def assign(variables, seed=1):
    generator = np.random.default_rng(seed)
    for variable in variables:
        variable.assign(generator.normal(size=variable.shape))


def test_arguments_of_domain_norm():
    layer = layers.DomainNorm((4, 6), epsilon=0.5, negative_slope=0.2, dtype="float64")
    layer.build()
    np.testing.assert_array_equal(layer.gammas[1], np.ones(6))
    np.testing.assert_array_equal(layer.betas[1], np.zeros(6))
    assign(layer.variables)
    inputs = draw(6, "float64")
    expected = ops.instance_norm(
        inputs, layer.gammas[1], layer.betas[1], epsilon=0.5, negative_slope=0.2
    )
    np.testing.assert_allclose(layer(inputs, domain=1), expected)


def test_depthwise_conv_adds_the_bias_of_its_domain():
    layer = layers.DepthwiseConv3D(4, 2, kernel_size=(1, 3, 5), dtype="float64")
    layer.build()
    assert layer.kernels[0].shape == (1, 3, 5, 4)
    assign(layer.variables)
    inputs = draw(4, "float64")
    expected = ops.depthwise_conv3d(inputs, layer.kernels[1]) + layer.biases[1].value
    np.testing.assert_allclose(layer(inputs, domain=1), expected)


def test_domain_conv_adds_the_bias_of_its_domain():
    layer = layers.DomainConv3D((1, 2), (3, 4), kernel_size=(1, 1, 1), dtype="float64")
    layer.build()
    assign(layer.variables)
    inputs = draw(2, "float64")
    kernel = layer.kernels[1].numpy()[0, 0, 0]
    expected = inputs.numpy() @ kernel + layer.biases[1].numpy()
    np.testing.assert_allclose(layer(inputs, domain=1), expected)


def draw_kernels(name):
    """Returns two kernels of one layer and their fan-in."""
    if name == "shared":
        convs = [layers.SharedConv3D(32, 16, 2) for _ in range(2)]
        for conv in convs:
            conv.build()
        return [conv.kernel.numpy() for conv in convs], 27 * 32
    if name == "depthwise":
        layer, fan_in = layers.DepthwiseConv3D(512, 2), 27
    else:
        layer, fan_in = layers.DomainConv3D((32, 32), (16, 16)), 27 * 32
    layer.build()
    assert not any(np.any(bias.numpy()) for bias in layer.biases)
    return [kernel.numpy() for kernel in layer.kernels], fan_in


@pytest.mark.parametrize("name", ["shared", "depthwise", "domain"])
def test_initialization_is_he_normal(name):
    keras.utils.set_random_seed(0)
    (first, second), fan_in = draw_kernels(name)
    deviation = np.sqrt(2.0 / fan_in)
    # 13,824 numbers: the standard error of their deviation is 0.6 %; a truncated normal
    # distribution with this deviation would end at 2.3 deviations.
    np.testing.assert_allclose(np.std(first), deviation, rtol=0.03)
    assert np.max(np.abs(first)) > 3.0 * deviation
    assert not np.array_equal(first, second)


def test_units_reject_even_depthwise_kernels():
    with pytest.raises(ValueError, match=r"Received: kernel_size="):
        layers.DepthwiseConv3D(4, 2, kernel_size=(2, 3, 3))


def test_channels_must_match_the_domain():
    layer = layers.DomainConv3D((1, 2), (3, 3))
    with pytest.raises(ValueError, match=r"Received: inputs.shape="):
        layer(draw(2), domain=0)
    with pytest.raises(ValueError, match=r"Received: in_channels_per_domain="):
        layers.DomainConv3D((1, 2), (3,))


@pytest.mark.parametrize("values", [(), (0,), (1.5,), (-1, 2)])
def test_channels_are_positive_integers(values):
    with pytest.raises(ValueError, match=r"Received: "):
        layers.DomainNorm(values)


@pytest.mark.parametrize("unit", conv_units.UNITS.values())
def test_unit_arguments(unit):
    inputs = draw(4)
    for upsample in ((1, 1, 1), (1, 2, 3)):
        layer = unit(4, 6, 2, kernel_size=(1, 3, 3), upsample=upsample)
        outputs = layer(inputs, domain=0)
        size = np.multiply(inputs.shape[1:4], upsample)
        assert outputs.shape == (inputs.shape[0], *size, 6)
        # A LeakyReLU with slope 0.01 leaves only small negative values.
        assert float(tf.reduce_min(outputs)) > -0.1
        residual = tf.fill(outputs.shape, -1000.0)
        added = layer(inputs, residual, domain=0)
        assert float(tf.reduce_max(added)) == pytest.approx(-10, abs=0.2)
        first_repeated = ops.upsample_nearest(inputs, upsample)
        plain = unit(4, 6, 2, kernel_size=(1, 3, 3))
        plain.build()
        plain.set_weights(layer.get_weights())
        np.testing.assert_allclose(plain(first_repeated, domain=0), outputs, atol=1e-4)
        kernel = (
            layer.depthwise.kernels[0] if "Sep" in unit.__name__ else layer.conv.kernel
        )
        assert tuple(kernel.shape[:3]) == (1, 3, 3)


def test_down_sample_pads_at_the_end():
    layer = blocks.DownSample(1, 1, 1, strides=(2, 1, 2), dtype="float64")
    layer.build()
    layer.conv.kernel.assign(np.ones((3, 3, 3, 1, 1)))
    outputs = layer.conv(tf.ones((1, 4, 4, 4, 1), tf.float64), domain=0)
    assert outputs.shape == (1, 2, 4, 2, 1)
    # Windows along a strided axis cover 3 voxels, then 2; along the other 2, 3, 3, 2.
    expected = np.einsum("i,j,k->ijk", [3, 2], [2, 3, 3, 2], [3, 2])
    np.testing.assert_array_equal(outputs[0, ..., 0], expected)


def test_encoder_block_adds_its_input():
    layer = blocks.EncoderBlock(4, 1, adapter="none")
    layer.build()
    for unit in layer.parts.values():
        unit.norm.gammas[0].assign(np.zeros(4))
    inputs = draw(4)
    np.testing.assert_allclose(
        layer(inputs, domain=0), tf.nn.leaky_relu(inputs, 0.01), atol=1e-6
    )


@pytest.mark.parametrize("adapter", conv_units.UNITS)
def test_blocks_use_the_adapter(adapter):
    encoder = blocks.EncoderBlock(4, 2, adapter=adapter)
    decoder = blocks.DecoderBlock(4, 2, strides=(2, 2, 2), adapter=adapter)
    for unit in (*encoder.parts.values(), *decoder.parts.values()):
        assert type(unit) is conv_units.UNITS[adapter]


@pytest.mark.parametrize("adapter", conv_units.UNITS)
def test_second_up_conv(adapter):
    for size, second_up_conv in ((1, "pointwise"), (3, "full")):
        block = blocks.DecoderBlock(
            4, 2, strides=(2, 1, 2), adapter=adapter, second_up_conv=second_up_conv
        )
        outputs = block(draw(8, size=(2, 4, 2)), draw(4), domain=1)
        assert outputs.shape == (2, 4, 4, 4, 4)
        assert block.unit_2.kernel_size == (size,) * 3
        assert block.unit_1.kernel_size == (3, 3, 3)


def test_unknown_options_are_rejected():
    with pytest.raises(ValueError, match=r"Received: adapter='seperable'"):
        blocks.EncoderBlock(4, 2, adapter="seperable")
    with pytest.raises(ValueError, match=r"Received: second_up_conv='half'"):
        blocks.DecoderBlock(4, 2, strides=(2, 2, 2), second_up_conv="half")


@pytest.mark.parametrize("unit", conv_units.UNITS.values())
def test_units_take_parts(unit):
    layer = unit(5, 4, 2, dtype="float64")
    layer.build()
    assign(layer.variables)
    parts = [draw(3, "float64"), draw(2, "float64")]
    np.testing.assert_allclose(
        layer(parts, domain=1),
        layer(tf.concat(parts, axis=-1), domain=1),
        atol=1e-9,
    )


def test_decoder_block_does_not_concatenate_its_inputs():
    """The concatenation of up-sampled and skip map would be the largest map."""
    for adapter, joins in (("separable", 0), ("none", 1)):
        block = blocks.DecoderBlock(2, 1, strides=(2, 2, 2), adapter=adapter)
        block.build()
        graph = tf.function(
            lambda x, y, block=block: block(x, y, domain=0), autograph=False
        )
        concrete = graph.get_concrete_function(
            tf.TensorSpec((1, 2, 2, 2, 4)), tf.TensorSpec((1, 4, 4, 4, 2))
        )
        kinds = [operation.type for operation in concrete.graph.get_operations()]
        assert kinds.count("ConcatV2") == joins


class TestVariablesByPath:
    def test_lists_every_variable_of_a_unit_once(self):
        unit = conv_units.SeparableUnit(3, 4, 2)
        unit.build()
        found = unit.variables_by_path()
        assert list(found) == [
            "depthwise/kernel_0",
            "depthwise/bias_0",
            "depthwise/kernel_1",
            "depthwise/bias_1",
            "depthwise_norm/gamma_0",
            "depthwise_norm/beta_0",
            "depthwise_norm/gamma_1",
            "depthwise_norm/beta_1",
            "pointwise/kernel",
            "pointwise/bias",
            "norm/gamma_0",
            "norm/beta_0",
            "norm/gamma_1",
            "norm/beta_1",
        ]
        assert found["depthwise/bias_1"] is unit.depthwise.biases[1]
        assert found["pointwise/kernel"] is unit.pointwise.kernel
        assert set(map(id, found.values())) == set(map(id, unit.variables))

    def test_does_not_depend_on_names_of_attributes(self):
        class Renamed(layers.DomainLayer):
            """A layer whose attributes were renamed in the code."""

            def __init__(self, num_domains):
                super().__init__(num_domains)
                self.mixing = self.add_part(
                    layers.SharedConv3D(2, 3, num_domains, name="conv")
                )
                self.scaling = self.add_part(layers.DomainNorm([3]), name="norm")

        layer = Renamed(1)
        layer.build()
        assert list(layer.variables_by_path()) == [
            "conv/kernel",
            "conv/bias",
            "norm/gamma_0",
            "norm/beta_0",
        ]
        assert layer.parts == {"conv": layer.mixing, "norm": layer.scaling}


class TestParts:
    def test_are_built_in_the_order_in_which_they_are_added(self):
        unit, built = conv_units.SeparableUnit(3, 4, 2), []
        for name, part in unit.parts.items():
            part.build = functools.partial(built.append, name)
        unit.build()
        assert built == ["depthwise", "depthwise_norm", "pointwise", "norm"]

    def test_have_different_names(self):
        layer = layers.DomainLayer(1)
        layer.add_part(layers.DomainNorm([3], name="norm"))
        with pytest.raises(ValueError, match="Received: 'norm' again"):
            layer.add_part(layers.DomainNorm([3]), name="norm")

    def test_cannot_be_changed_from_outside(self):
        with pytest.raises(TypeError):
            conv_units.PlainUnit(1, 1, 1).parts["norm"] = None


def test_shared_conv_checks_the_domain():
    layer = layers.SharedConv3D(2, 3, 2)
    with pytest.raises(ValueError, match="`domain` must be an integer from 0 to 1"):
        layer(draw(2), domain=2)


@pytest.mark.parametrize("option", ["activation", "dilation_rate", "groups"])
def test_shared_conv_rejects_other_options(option):
    with pytest.raises(ValueError, match=option):
        layers.SharedConv3D(2, 3, 2, **{option: 1})
