import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.u2net import U2Net

pytestmark = pytest.mark.usefixtures("plain_implementation")

TINY = {"pools": (2, 1, 2), "base_channels": 2}


def make(num_modalities=(1, 2), num_classes=(2, 3), **options):
    model = U2Net(num_modalities, num_classes, **{**TINY, **options})
    model.build()
    return model


@pytest.fixture(scope="module")
def model():
    """A model that tests must not change."""
    return make()


def draw(channels, size=(8, 8, 8), dtype="float32"):
    numbers = np.random.default_rng(0).normal(size=(2, *size, channels))
    return tf.constant(numbers, dtype)


@pytest.mark.parametrize(
    ("adapter", "second_up_conv"),
    [
        ("separable", "full"),
        ("series", "pointwise"),
        ("parallel", "pointwise"),
        ("none", "full"),
        *(
            pytest.param(adapter, second_up_conv, marks=pytest.mark.slow)
            for adapter, second_up_conv in (
                ("separable", "pointwise"),
                ("series", "full"),
                ("parallel", "full"),
                ("none", "pointwise"),
            )
        ),
    ],
)
def test_variables_are_shared_or_belong_to_one_domain(adapter, second_up_conv):
    options = {"adapter": adapter, "second_up_conv": second_up_conv}
    model = make(pools=(2, 0, 1), **options)
    groups = [model.shared_variables, *(model.domain_variables(t) for t in (0, 1))]
    paths = [variable.path for group in groups for variable in group]
    assert len(set(paths)) == len(paths)
    assert set(paths) == {variable.path for variable in model.trainable_variables}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(draw(2, (4, 2, 2)), domain=1) ** 2)
    values = [[variable.value for variable in group] for group in groups]
    shared, other, own = tape.gradient(loss, values)
    assert all(gradient is None for gradient in other)
    assert all(gradient is not None for gradient in shared + own)


def test_frozen_variables_are_excluded():
    model = make(pools=(1, 0, 0))
    num_shared = len(model.shared_variables)
    num_own = len(model.domain_variables(0))
    model.shared_variables[0].trainable = False
    model.domain_variables(0)[0].trainable = False
    assert len(model.shared_variables) == num_shared - 1
    assert len(model.domain_variables(0)) == num_own - 1


def test_build_makes_all_variables_once():
    model = make()
    paths = [variable.path for variable in model.variables]
    model.build()
    for domain, channels in enumerate((1, 2)):
        model(draw(channels), domain=domain)
    assert [variable.path for variable in model.variables] == paths
    assert len(set(paths)) == len(paths)


def test_variables_have_stable_paths():
    first, second = (make(name="mine", pools=(1, 0, 0)) for _ in range(2))
    paths = [variable.path for variable in first.variables]
    assert paths == [variable.path for variable in second.variables]
    assert "mine/encoder_1/unit_2/depthwise/kernel_1" in paths


@pytest.mark.parametrize(
    ("adapter", "resolved"),
    [
        ("separable", "full"),
        ("series", "pointwise"),
        ("parallel", "pointwise"),
        ("none", "pointwise"),
    ],
)
def test_default_second_up_conv_is_as_published(adapter, resolved):
    model = U2Net((1,), (2,), adapter=adapter, **TINY)
    assert {block.second_up_conv for block in model.decoder} == {resolved}


def test_a_call_builds(model):
    called = U2Net((1, 2), (2, 3), **TINY)
    called(draw(2, (4, 2, 4)), domain=1)
    assert len(called.variables) == len(model.variables)


def test_domain_variables_need_a_built_model():
    with pytest.raises(ValueError, match="Received: an unbuilt model"):
        U2Net((1, 2), (2, 3), **TINY).domain_variables(0)


@pytest.mark.parametrize(
    "pools",
    [
        (1, 1, 1),
        pytest.param((2, 2, 1), marks=pytest.mark.slow),
        (3, 0, 2),
    ],
)
def test_logits_have_the_size_of_the_input(pools):
    model = make(pools=pools)
    for domain, (channels, classes) in enumerate(((1, 2), (2, 3))):
        logits = model(draw(channels), domain=domain)
        assert logits.shape == (2, 8, 8, 8, classes)
        assert np.std(logits) > 0
    assert len(model.encoder) == max(pools) + 1
    assert model.encoder[-1].channels == 2 * 2 ** max(pools)


@pytest.mark.parametrize(
    ("pools", "levels"),
    [
        ((1, 1, 1), ()),
        ((2, 1, 0), (1,)),
        pytest.param((3, 3, 3), (2, 1), marks=pytest.mark.slow),
        ((4, 1, 1), (2, 1)),
    ],
)
def test_deep_supervision_reads_the_levels_that_exist(pools, levels):
    model = make(pools=pools, adapter="none")
    assert model.supervised_levels == levels
    # With a head of zeros and all γ = 0, the logits are the sum of LeakyReLU(β).
    for variable in [*model.head.kernels, *model.head.biases]:
        variable.assign(np.zeros(variable.shape))
    expected = 0.0
    for index, block in enumerate(model.deep_supervision):
        block.norm.gammas[1].assign(np.zeros(3))
        block.norm.betas[1].assign(np.full(3, 10.0**index))
        expected += 10.0**index
    logits = model(draw(2, size=(16, 8, 8)), domain=1)
    np.testing.assert_allclose(logits, np.full(logits.shape, expected), atol=1e-5)


@pytest.mark.parametrize(
    ("adapter", "pools", "number"),
    [
        ("none", 3, 21),
        ("separable", 3, 38),
        pytest.param("series", 3, 38, marks=pytest.mark.slow),
        pytest.param("parallel", 3, 21, marks=pytest.mark.slow),
        pytest.param("separable", 5, 60, marks=pytest.mark.slow),
    ],
)
def test_number_of_consecutive_normalizations(monkeypatch, adapter, pools, number):
    """Of the golden networks and of the default, as stated in docs/network.md.

    If each normalization is replaced by a factor, the logits are a polynomial in it
    whose degree is the number of normalizations on the longest path.
    """
    network = make(adapter=adapter, pools=(pools,) * 3, dtype="float64")

    def largest_logit(factor):
        def multiply(inputs, gamma, beta, residual=None, **_):
            return inputs * factor if residual is None else inputs * factor + residual

        monkeypatch.setattr(ops, "instance_norm", multiply)
        images = draw(1, (2**pools,) * 3, "float64")
        return np.abs(network(images, domain=0)).max()

    degree = np.log10(largest_logit(1e4) / largest_logit(1e3))
    assert degree == pytest.approx(number, abs=0.1)


def test_unknown_batch_and_size():
    # In float64: the order of summation differs if the size is unknown.
    model = make(dtype="float64", adapter="none")
    spec = tf.TensorSpec((None, None, None, None, 2), tf.float64)
    compiled = tf.function(lambda x: model(x, domain=1), input_signature=[spec])
    for size in ((4, 2, 4), (8, 4, 4)):
        inputs = draw(2, size, "float64")
        np.testing.assert_allclose(compiled(inputs), model(inputs, domain=1), atol=1e-8)


def test_training_has_no_effect(model):
    np.testing.assert_array_equal(
        model(draw(2), domain=1, training=True),
        model(draw(2), domain=1, training=False),
    )


@pytest.mark.parametrize(
    ("dtype", "logits", "variables"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("mixed_bfloat16", "float32", "float32"),
    ],
)
def test_dtypes(dtype, logits, variables):
    model = make(dtype=dtype, pools=(1, 0, 0))
    assert model(draw(2, (2, 2, 2)), domain=1).dtype == logits
    assert {variable.dtype for variable in model.variables} == {variables}


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_config_survives_json(dtype):
    options = {
        "pools": (1, 2, 3),
        "base_channels": 3,
        "adapter": "series",
        "second_up_conv": "full",
        "dtype": dtype,
        "name": "mine",
    }
    model = U2Net((1, 2), (2, 3), **options)
    twin = U2Net.from_config(json.loads(json.dumps(model.get_config())))
    assert twin.get_config() == model.get_config()
    for name in ("pools", "base_channels", "adapter", "second_up_conv", "name"):
        assert getattr(twin, name) == options[name]
    assert (twin.num_modalities, twin.num_classes) == ((1, 2), (2, 3))
    assert twin.dtype_policy.name == dtype


def test_keras_file(tmp_path):
    model = make(pools=(1, 0, 0))
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(draw(2), domain=1), twin(draw(2), domain=1))


# `conformance` tests the checkpoints of training with every network.
@pytest.mark.slow
def test_checkpoint(tmp_path, model):
    twin = make()
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=twin).read(path).assert_consumed()
    np.testing.assert_array_equal(model(draw(2), domain=1), twin(draw(2), domain=1))


def test_checkpoint_of_fewer_domains_fits_into_more(tmp_path, model):
    twin = make((1, 2, 1), (2, 3, 2))
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=twin).read(path).expect_partial()
    np.testing.assert_array_equal(model(draw(2), domain=1), twin(draw(2), domain=1))


def test_initialization_follows_the_global_seed():
    models = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        models.append(make((1,), (2,), pools=(1, 0, 0)).get_weights())
    first, same, other = models
    assert all(map(np.array_equal, first, same))
    assert not all(map(np.array_equal, first, other))


def test_variables_are_mirrored_under_a_strategy():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        model = make(pools=(1, 0, 0))
    for variable in model.variables:
        assert variable.value.distribute_strategy is strategy


class TestRejections:
    @pytest.mark.parametrize(
        ("size", "axis"), [((6, 8, 8), "D"), ((8, 7, 8), "H"), ((8, 8, 2), "W")]
    )
    def test_sizes_name_the_axis(self, model, size, axis):
        with pytest.raises(ValueError, match=rf"Axis {axis} .*Received: {axis}="):
            model(draw(2, size), domain=1)

    def test_channels_of_another_domain(self, model):
        with pytest.raises(ValueError, match=r"Received: inputs.shape="):
            model(draw(2), domain=0)

    def test_rank(self, model):
        with pytest.raises(ValueError, match=r"Received: inputs.shape="):
            model(tf.zeros((8, 8, 8, 2)), domain=1)

    @pytest.mark.parametrize("domain", [-1, 2])
    def test_domain(self, model, domain):
        with pytest.raises(ValueError, match=r"Received: domain="):
            model(draw(2), domain=domain)
        with pytest.raises(ValueError, match=r"Received: domain="):
            model.domain_variables(domain)

    @pytest.mark.parametrize(
        "options",
        [
            {"num_modalities": (1,)},
            {"num_modalities": (1, 0)},
            {"num_classes": (1, 2)},
            {"pools": (0, 0, 0)},
            {"pools": (2, 2)},
            {"pools": (2, -1, 2)},
            {"base_channels": 0},
            {"adapter": "adapter"},
            {"second_up_conv": "none"},
        ],
    )
    def test_arguments(self, options):
        with pytest.raises(ValueError, match="Received: "):
            make(**options)
