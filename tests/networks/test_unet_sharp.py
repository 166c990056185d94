import keras
import numpy as np
import pytest
import tensorflow as tf
from sharp_reference import Reference

from u2net_tf.networks import ops
from u2net_tf.networks.parameter_counts import (
    count_all,
    count_pruned,
    count_stride_1_weights,
    count_trunk,
    network_without_values,
)
from u2net_tf.networks.unet_sharp import UNetSharp

pytestmark = pytest.mark.usefixtures("plain_implementation")


def build(num_modalities=(1,), num_classes=(2,), **options):
    """A network in float64 with random variables."""
    keras.utils.set_random_seed(0)
    network = UNetSharp(
        num_modalities, num_classes, **{"base_channels": 2, **options}, dtype="float64"
    )
    network.build()
    generator = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(variable + 0.3 * generator.normal(size=variable.shape))
    return network


def draw(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("depth", "nodes", "heads_per_class"),
    [
        (1, 305_760, 1_762),
        (2, 1_661_856, 5_252),
        (3, 7_581_408, 12_198),
        (4, 32_221_728, 32_247_784 - 32_221_728),
    ],
)
def test_number_of_parameters(depth, nodes, heads_per_class):
    """One input channel, 32 at full resolution, one output channel per class."""
    network = network_without_values(
        (1,),
        (2,),
        architecture="unet_sharp",
        depth=depth,
        base_channels=32,
        adapter="none",
    )
    heads = sum(head.count_params() for head in network.heads.values())
    assert network.count_params() - heads == nodes
    assert len(network.heads) == 2 * depth
    # Kernels and biases of heads are proportional to the classes.
    assert heads == 2 * heads_per_class
    assert count_all(network).total == nodes + heads
    assert count_trunk(network).total == nodes - network.stem.count_params()


def test_pruning_keeps_the_gates_of_its_depth():
    options = {"architecture": "unet_sharp", "base_channels": 2, "gates": "both"}
    full = network_without_values((1,), (2,), depth=2, **options)
    pruned = network_without_values(
        (1,), (2,), depth=1, deep_supervision=False, **options
    )
    assert len(pruned.gates) == 2
    assert count_pruned(full, 1) == count_all(pruned)


def test_another_domain_adds_only_depthwise_filters():
    """Derived by hand for depth 1: units 4 → 4; 4 → 8, 8 → 8; 12 → 4, 4 → 4."""
    network = network_without_values(
        (1, 2), (2, 3), architecture="unet_sharp", depth=1, base_channels=4
    )
    count = count_stride_1_weights(network)
    assert count.shared == 16 + 32 + 64 + 48 + 16
    assert count.per_domain == (27 * (4 + 4 + 8 + 12 + 4),) * 2


CONFIGURATIONS = {
    "plain": (
        {"depth": 2, "pools": (1, 2, 2), "align_corners": False},
        {"adapter": "none", "num_modalities": (2,), "num_classes": (3,)},
        (2, 4, 8, 4),
    ),
    "separable": (
        {"depth": 2, "pools": (0, 2, 1), "align_corners": True},
        {"adapter": "separable", "num_modalities": (2, 1), "num_classes": (3, 2)},
        (1, 2, 8, 4),
    ),
    "deep": (
        {"depth": 4, "pools": (1, 3, 4), "align_corners": False},
        {"adapter": "none", "num_modalities": (1,), "num_classes": (2,)},
        (1, 2, 16, 32),
    ),
}
SLOW = pytest.param("deep", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["plain", "separable", SLOW])
def compared(request):
    """Network, domain, values, logits, upstream gradients, gradients, reference."""
    settings, others, shape = CONFIGURATIONS[request.param]
    network = build(**settings, **others)
    domain = network.num_domains - 1
    image = draw(*shape, network.num_modalities[domain])
    by_path = network.variables_by_path()
    tensors = [tf.constant(image), *(v.value for v in by_path.values())]
    with ops.use_implementation("plain"):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            logits = network.head_logits(
                tensors[0], domain=domain, heads=list(network.heads)
            )
            upstream = {
                head: draw(
                    *values.shape, seed=sum(10**n * i for n, i in enumerate(head))
                )
                for head, values in logits.items()
            }
            total = tf.add_n([tf.reduce_sum(upstream[h] * logits[h]) for h in logits])
        gradients = tape.gradient(total, tensors, unconnected_gradients="zero")
    names = ["image", *by_path]
    values = {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
    found = {n: g.numpy() for n, g in zip(names, gradients, strict=True)}

    def reference(params):
        run = Reference(params, domain, **settings)
        return run.heads(params["image"])

    return network, domain, values, logits, upstream, found, reference


def test_logits_of_every_head(compared):
    network, domain, values, logits, _, _, reference = compared
    expected = reference(values)
    assert expected.keys() == logits.keys()
    for head, expected_logits in expected.items():
        np.testing.assert_allclose(logits[head], expected_logits, rtol=0, atol=1e-9)
    # The network predicts with the last head at full resolution.
    output = network(tf.constant(values["image"]), domain=domain)
    np.testing.assert_array_equal(output, logits[0, network.depth])


def test_gradients_of_every_part(compared):
    """For all variables of a part together, along a random direction."""
    _, _, values, _, upstream, found, reference = compared

    def total(params):
        return sum((upstream[h] * v).sum() for h, v in reference(params).items())

    parts = {name.partition("/")[0] for name in values}
    for seed, part in enumerate(sorted(parts)):
        names = [name for name in values if name.partition("/")[0] == part]
        direction = {n: draw(*values[n].shape, seed=seed) for n in names}
        ends = [
            total({**values, **{n: values[n] + h * direction[n] for n in names}})
            for h in (1e-6, -1e-6)
        ]
        expected = (ends[0] - ends[1]) / 2e-6
        ours = sum((found[n] * direction[n]).sum() for n in names)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5, err_msg=part)


def test_variables_of_another_domain_have_no_effect():
    network = build((1, 1), (2, 2), depth=1)
    inputs = tf.constant(draw(1, 2, 2, 2, 1))
    before = network(inputs, domain=0)
    for variable in network.domain_variables(1):
        variable.assign(variable + 1)
    np.testing.assert_array_equal(network(inputs, domain=0), before)
    with pytest.raises(ValueError, match="`domain` must be an integer from 0 to 1"):
        network(inputs, domain=2)


def test_without_deep_supervision_there_is_only_the_last_head():
    network = build(depth=2, deep_supervision=False)
    assert list(network.heads) == [(0, 2)]
    with pytest.raises(ValueError, match=r"`heads` must be among .*\(1, 1\)"):
        network.head_logits(tf.zeros((1, 4, 4, 4, 1)), domain=0, heads=[(0, 2), (1, 1)])


def test_gradient_checkpointing_does_not_change_results():
    inputs = tf.constant(draw(1, 2, 4, 2, 1))
    found = []
    for how in ("none", "blocks"):
        network = build(depth=1, gradient_checkpointing=how)
        with tf.GradientTape() as tape:
            outputs = network(inputs, domain=0)
        variables = [
            *network.shared_variables,
            *network.stem.domain_variables(0),
            *network.trunk_domain_variables(0),
        ]
        found.append([outputs, *tape.gradient(outputs, variables)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 5}, "`depth` must be at most 4 .*depth=5"),
        ({"depth": 0}, "`depth` must be an integer of at least 1"),
        ({"depth": 2, "pools": (1, 3, 1)}, r"`pools` at most `depth`.*\(1, 3, 1\)"),
        ({"adapter": "other"}, "`adapter` must be one of"),
        ({"gradient_checkpointing": "all"}, "`gradient_checkpointing` must be one of"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        UNetSharp((1,), (2,), **options)


def test_rejects_a_size_that_cannot_be_halved():
    network = build(depth=2, pools=(1, 2, 0))
    with pytest.raises(ValueError, match="Axis H is halved 2 times"):
        network(tf.zeros((1, 2, 6, 1, 1)), domain=0)
