import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.networks import blocks, layers, ops, units

NUM_DOMAINS = 2
# One entry per layer: how it is made, and the channels of its inputs in domain 1.
TABLE = {
    "DomainNorm": (
        lambda **kw: layers.DomainNorm((4, 6), epsilon=1e-3, negative_slope=0.2, **kw),
        [6],
    ),
    "DepthwiseConv3D": (
        lambda **kw: layers.DepthwiseConv3D(4, 2, kernel_size=(1, 3, 5), **kw),
        [4],
    ),
    "DomainConv3D": (
        lambda **kw: layers.DomainConv3D((1, 2), (3, 4), kernel_size=(3, 1, 1), **kw),
        [2],
    ),
    **{
        unit.__name__: (
            lambda unit=unit, **kw: unit(
                4, 6, 2, kernel_size=(3, 3, 1), activate=False, **kw
            ),
            [4],
        )
        for unit in units.UNITS.values()
    },
    "DomainConvBlock": (
        lambda **kw: blocks.DomainConvBlock(
            (1, 2), (3, 4), kernel_size=(1, 1, 3), **kw
        ),
        [2],
    ),
    "EncoderBlock": (
        lambda **kw: blocks.EncoderBlock(4, 2, adapter="series", **kw),
        [4],
    ),
    "DownSample": (
        lambda **kw: blocks.DownSample(4, 8, 2, strides=(1, 2, 2), **kw),
        [4],
    ),
    "DecoderBlock": (
        lambda **kw: blocks.DecoderBlock(
            4,
            2,
            strides=(1, 1, 1),
            adapter="parallel",
            second_up_conv="pointwise",
            **kw,
        ),
        [8, 4],
    ),
}


def draw(channels, dtype="float32", size=(4, 4, 4)):
    numbers = np.random.default_rng(0).normal(size=(2, *size, channels))
    return tf.constant(numbers, dtype)


def test_every_layer_is_in_the_table():
    classes = {
        name
        for module in (layers, units, blocks)
        for name, member in vars(module).items()
        if inspect.isclass(member) and issubclass(member, keras.layers.Layer)
    }
    assert classes - {"DomainLayer", "ConvUnit"} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
class TestEveryLayer:
    def test_config_mirrors_the_constructor(self, name):
        make, channels = TABLE[name]
        layer = make(dtype="float64", name="mine")
        config = layer.get_config()
        constructor = inspect.signature(type(layer).__init__).parameters
        assert set(constructor) - {"self", "kwargs"} <= set(config)
        twin = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(layer)
        )
        assert type(twin) is type(layer)
        assert twin.get_config() == config
        assert twin.compute_dtype == "float64"
        inputs = [draw(count, "float64") for count in channels]
        layer(*inputs, domain=1)
        twin(*inputs, domain=1)
        twin.set_weights(layer.get_weights())
        np.testing.assert_array_equal(layer(*inputs, domain=1), twin(*inputs, domain=1))

    def test_domain_chooses_its_variables_and_no_others(self, name):
        make, channels = TABLE[name]
        layer = make()
        layer.build()
        num_variables = len(layer.trainable_variables)
        with tf.GradientTape() as tape:
            outputs = layer(*(draw(count) for count in channels), domain=1)
            loss = tf.reduce_sum(outputs**2)
        assert len(layer.trainable_variables) == num_variables
        own, other = ({v.path for v in layer.domain_variables(t)} for t in (1, 0))
        assert own.isdisjoint(other)
        values = [variable.value for variable in layer.trainable_variables]
        paths = [variable.path for variable in layer.trainable_variables]
        assert len(set(paths)) == len(paths)
        for path, gradient in zip(paths, tape.gradient(loss, values), strict=True):
            assert (gradient is None) == (path in other)

    def test_rejects_a_domain_that_is_not(self, name):
        make, channels = TABLE[name]
        layer = make()
        for domain in (-1, 2, "heart"):
            with pytest.raises(ValueError, match=r"Received: domain="):
                layer(*(draw(count) for count in channels), domain=domain)
            with pytest.raises(ValueError, match=r"Received: domain="):
                layer.domain_variables(domain)

    @pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
    def test_honours_dtype(self, name, dtype):
        make, channels = TABLE[name]
        layer = make(dtype=dtype)
        outputs = layer(*(draw(count) for count in channels), domain=1)
        expected = ("float64",) * 2 if dtype == "float64" else ("bfloat16", "float32")
        assert outputs.dtype == expected[0]
        assert {variable.dtype for variable in layer.variables} == {expected[1]}

    def test_unknown_sizes(self, name):
        make, channels = TABLE[name]
        layer = make()
        layer.build()
        call = tf.function(lambda *inputs: layer(*inputs, domain=1), autograph=False)
        specs = [tf.TensorSpec((None, None, None, None, count)) for count in channels]
        inputs = [draw(count, size=(2, 4, 6)) for count in channels]
        np.testing.assert_allclose(
            call.get_concrete_function(*specs)(*inputs),
            layer(*inputs, domain=1),
            atol=1e-5,
        )


def assign(variables, seed=1):
    generator = np.random.default_rng(seed)
    for variable in variables:
        variable.assign(generator.normal(size=variable.shape))


def test_domain_norm_computes_what_its_arguments_say():
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
        convs = [layers.shared_conv(32, 16, (3, 3, 3)) for _ in range(2)]
        for conv in convs:
            conv.build((None, None, None, None, 32))
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
    # 13,824 numbers: their deviation is known to 0.6 %; a truncated normal
    # distribution of this deviation would end at 2.3 deviations.
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
    with pytest.raises(ValueError, match=r"Received: in_channels="):
        layers.DomainConv3D((1, 2), (3,))


@pytest.mark.parametrize("values", [(), (0,), (1.5,), (-1, 2)])
def test_channels_are_positive_integers(values):
    with pytest.raises(ValueError, match=r"Received: "):
        layers.DomainNorm(values)


@pytest.mark.parametrize("unit", units.UNITS.values())
def test_unit_arguments(unit):
    inputs = draw(4)
    for activate in (True, False):
        layer = unit(4, 6, 2, kernel_size=(1, 3, 3), activate=activate)
        outputs = layer(inputs, domain=0)
        assert outputs.shape == (*inputs.shape[:4], 6)
        # A LeakyReLU of slope 0.01 leaves next to nothing below zero.
        assert (float(tf.reduce_min(outputs)) > -0.1) == activate
        kernel = (
            layer.depthwise.kernels[0] if "Sep" in unit.__name__ else layer.conv.kernel
        )
        assert tuple(kernel.shape[:3]) == (1, 3, 3)


def test_down_sample_pads_at_the_end():
    layer = blocks.DownSample(1, 1, 1, strides=(2, 1, 2), dtype="float64")
    layer.build()
    layer.conv.kernel.assign(np.ones((3, 3, 3, 1, 1)))
    outputs = layer.conv(tf.ones((1, 4, 4, 4, 1), tf.float64))
    assert outputs.shape == (1, 2, 4, 2, 1)
    # Windows on a strided axis hold 3 voxels, then 2; on the other 2, 3, 3, 2.
    expected = np.einsum("i,j,k->ijk", [3, 2], [2, 3, 3, 2], [3, 2])
    np.testing.assert_array_equal(outputs[0, ..., 0], expected)


def test_encoder_block_adds_its_input():
    layer = blocks.EncoderBlock(4, 1, adapter="none")
    layer.build()
    for unit in layer.sublayers:
        unit.norm.gammas[0].assign(np.zeros(4))
    inputs = draw(4)
    np.testing.assert_allclose(
        layer(inputs, domain=0), tf.nn.leaky_relu(inputs, 0.01), atol=1e-6
    )


@pytest.mark.parametrize("adapter", units.UNITS)
def test_blocks_use_the_adapter(adapter):
    encoder = blocks.EncoderBlock(4, 2, adapter=adapter)
    decoder = blocks.DecoderBlock(4, 2, strides=(2, 2, 2), adapter=adapter)
    for unit in encoder.sublayers + decoder.sublayers:
        assert type(unit) is units.UNITS[adapter]


@pytest.mark.parametrize("adapter", units.UNITS)
def test_second_up_conv(adapter):
    for size, second_up_conv in ((1, "pointwise"), (3, "full")):
        block = blocks.DecoderBlock(
            4, 2, strides=(2, 1, 2), adapter=adapter, second_up_conv=second_up_conv
        )
        outputs = block(draw(8, size=(2, 4, 2)), draw(4), domain=1)
        assert outputs.shape == (2, 4, 4, 4, 4)
        assert block.unit_2.kernel_size == (size,) * 3
        assert block.unit_1.kernel_size == (3, 3, 3)


def test_unknown_words_are_rejected():
    with pytest.raises(ValueError, match=r"Received: adapter='seperable'"):
        blocks.EncoderBlock(4, 2, adapter="seperable")
    with pytest.raises(ValueError, match=r"Received: second_up_conv='half'"):
        blocks.DecoderBlock(4, 2, strides=(2, 2, 2), second_up_conv="half")
