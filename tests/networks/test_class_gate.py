"""Gates, compared with their formula in float64 NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from sharp_reference import Reference

from u2net_tf.networks.layers.class_gate import (
    ClassGate,
    close_gates,
    detect_classes,
)
from u2net_tf.networks.parameter_counts import (
    count_all,
    count_trunk,
    network_without_values,
)
from u2net_tf.networks.unet_sharp import UNetSharp
from u2net_tf.plan.sharp_grid import gate_places
from u2net_tf.training.gate_loss import presence_loss

pytestmark = pytest.mark.usefixtures("plain_implementation")
SEED = tf.constant([3, 5], tf.int64)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.fixture(scope="module")
def gate():
    """A gate of two domains with 1 and 3 foreground classes and random variables."""
    layer = ClassGate(5, (2, 4), dtype="float64")
    layer.build()
    generator = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(generator.normal(size=variable.shape))
    return layer


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(1).normal(size=(2, 3, 4, 2, 5))


@pytest.fixture(scope="module")
def labels():
    """The first patch has classes 1 and 3, the second class 2."""
    labels = np.zeros((2, 3, 4, 2), np.uint8)
    labels[0, 0, 1, 1], labels[0, 2, 2, 0], labels[1, 1] = 1, 3, 2
    return labels


PRESENT = np.array([[1, 0, 1], [0, 1, 0]])


def test_presence_is_the_largest_of_all_voxels(gate, inputs):
    kernel, bias = gate.conv.kernels[1].numpy(), gate.conv.biases[1].numpy()
    scores = inputs.reshape(2, 24, 5) @ kernel.reshape(5, 3) + bias
    found = gate(tf.constant(inputs), domain=1)
    np.testing.assert_allclose(found, scores.max(axis=1), rtol=1e-12)
    assert gate(tf.constant(inputs), domain=0).shape == (2, 1)
    with pytest.raises(ValueError, match="`domain` must be"):
        gate(tf.constant(inputs), domain=2)


def test_loss_and_its_gradients(gate, inputs, labels):
    """Derived by hand: a logit's derivative is (p - y) / number, only at its voxel."""
    kernel, bias = gate.conv.kernels[1], gate.conv.biases[1]
    tensors = [tf.constant(inputs), kernel.value, bias.value]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        loss = presence_loss(tf.constant(labels), gate(tensors[0], domain=1))
    found = tape.gradient(loss, tensors)
    voxels, weights = inputs.reshape(2, 24, 5), kernel.numpy().reshape(5, 3)
    scores = voxels @ weights + bias.numpy()
    p = sigmoid(scores.max(axis=1))
    expected = -(PRESENT * np.log(p) + (1 - PRESENT) * np.log(1 - p)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    upstream = (p - PRESENT) / 6
    of_inputs, of_weights = np.zeros((2, 24, 5)), np.zeros((5, 3))
    for n, k in np.ndindex(2, 3):
        where = scores[n, :, k].argmax()
        of_inputs[n, where] += upstream[n, k] * weights[:, k]
        of_weights[:, k] += upstream[n, k] * voxels[n, where]
    np.testing.assert_allclose(found[0], of_inputs.reshape(inputs.shape), atol=1e-14)
    np.testing.assert_allclose(found[1][0, 0, 0], of_weights, atol=1e-14)
    np.testing.assert_allclose(found[2], upstream.sum(axis=0), atol=1e-14)


def test_loss_in_half_precision_is_computed_in_float32(labels):
    logits = tf.constant([[20.0, -20, 30], [-30, 20, -20]], tf.float16)
    loss = presence_loss(tf.constant(labels), logits)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, 4 * np.exp(-20.0) / 6, rtol=1e-2)


class TestDropout:
    def factors(self, gate, seed, num_patches=400):
        """Dropout factor of each channel, in each voxel of each patch."""
        # All voxels are equal and share the gradient of the maximum equally.
        equal = tf.ones((num_patches, 1, 1, 2, 5), tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(equal)
            outputs = gate(equal, domain=0, dropout_seed=seed)
        gradient = 2 * tape.gradient(outputs, equal).numpy()
        return gradient / gate.conv.kernels[0].numpy().reshape(5)

    def test_drops_channels_of_a_patch_and_scales_the_others(self, gate):
        found = self.factors(gate, SEED)
        np.testing.assert_allclose(found[..., 0, :], found[..., 1, :])
        kept = found[:, 0, 0, 0]
        assert set(np.unique(kept.round(9))) == {0, 2}
        # 2,000 draws: six standard deviations are 0.13.
        assert abs(kept.mean() - 1) < 0.13
        # They vary between patches and between channels.
        assert kept.std(axis=0).min() > 0.5
        assert kept.std(axis=1).max() > 0.5

    def test_is_a_function_of_the_seed(self, gate):
        one, same = (self.factors(gate, SEED) for _ in range(2))
        np.testing.assert_array_equal(one, same)
        assert (self.factors(gate, SEED + 1) != one).any()

    def test_is_the_same_in_every_precision(self, gate):
        half = ClassGate(5, (2, 4), dtype="float16")
        half.build()
        for mine, other in zip(half.variables, gate.variables, strict=True):
            mine.assign(other)
        inputs = tf.eye(5)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        found, expected = (
            layer(tf.cast(inputs, layer.compute_dtype), domain=1, dropout_seed=SEED)
            for layer in (half, gate)
        )
        np.testing.assert_allclose(found, expected, atol=0.01)


class TestThreshold:
    LOGITS = np.random.default_rng(2).normal(size=(2, 1, 2, 3, 3))
    # Logits of two gates, for two patches and two classes.
    PRESENCE = (np.array([[1.0, -1], [3, 0]]), np.array([[0.0, 2], [1, -2]]))

    def closed(self, threshold, presence=PRESENCE):
        logits = close_gates(
            tf.constant(self.LOGITS), list(map(tf.constant, presence)), threshold
        )
        return logits, tf.nn.softmax(logits).numpy()

    def test_a_class_that_one_gate_rejects_has_probability_0(self):
        logits, found = self.closed(0.5)
        # sigmoid(0) is 0.5, and passes.
        passes = np.array([[True, True, False], [True, True, False]])
        assert (sigmoid(np.minimum(*self.PRESENCE)) >= 0.5).tolist() == (
            passes[:, 1:].tolist()
        )
        weights = np.exp(self.LOGITS) * passes[:, None, None, None]
        expected = weights / weights.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert (found[..., 2] == 0).all()
        assert np.isfinite(logits).all()
        np.testing.assert_array_equal(logits[..., :2], self.LOGITS[..., :2])

    def test_a_threshold_of_0_has_no_effect(self):
        np.testing.assert_array_equal(self.closed(0.0)[0], self.LOGITS)

    def test_without_any_class_everything_is_background(self):
        _, found = self.closed(1.0)
        np.testing.assert_array_equal(found, np.eye(3)[0] + np.zeros(self.LOGITS.shape))

    def test_each_gate_has_an_effect(self):
        first = self.closed(0.6, self.PRESENCE[:1])[1]
        second = self.closed(0.6, self.PRESENCE[1:])[1]
        # Patch, class -> passes.
        assert (first[:, 0, 0, 0, 1:] > 0).tolist() == [[True, False], [True, False]]
        assert (second[:, 0, 0, 0, 1:] > 0).tolist() == [[False, True], [True, False]]

    def test_threshold_applies_to_the_probability(self):
        """sigmoid(1) is 0.731."""
        one = (np.array([[1.0, 1], [1, 1]]),)
        assert self.closed(0.73, one)[1][..., 1].min() > 0
        assert self.closed(0.74, one)[1][..., 1].max() == 0


def build(**options):
    network = UNetSharp(
        (2, 1),
        (3, 2),
        **{"depth": 2, "pools": (0, 1, 2), "base_channels": 2, **options},
        adapter="none",
        dtype="float64",
    )
    network.build()
    generator = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(variable + 0.3 * generator.normal(size=variable.shape))
    return network


GATE_POSITIONS = {
    "none": [],
    "top": [(0, 1), (0, 2)],
    "deep": [(1, 0), (2, 0)],
    "both": [(0, 1), (0, 2), (1, 0), (2, 0)],
}


class TestNetwork:
    @pytest.mark.parametrize("gates", GATE_POSITIONS)
    def test_positions_of_gates(self, gates):
        options = {"depth": 2, "architecture": "unet_sharp", "gates": gates}
        network = network_without_values((1,), (2,), **options)
        assert list(network.gates) == GATE_POSITIONS[gates]
        single = network_without_values((1,), (2,), **options, deep_supervision=False)
        assert list(single.gates) == [p for p in GATE_POSITIONS[gates] if max(p) == 2]

    def test_rejects(self):
        with pytest.raises(ValueError, match="`gates` must be one of .*gates='all'"):
            UNetSharp((1,), (2,), gates="all")
        network = build(gates="deep")
        image = tf.zeros((1, 1, 2, 4, 2))
        with pytest.raises(ValueError, match=r"`gates` must be among .*\(0, 1\)"):
            network.head_and_gate_logits(
                image, domain=0, heads=[(0, 2)], gates=[(0, 1)]
            )
        with pytest.raises(ValueError, match="must have gates"):
            build(gates="none").gated_logits(image, domain=0, threshold=0.5)

    def test_parameters(self):
        """A weight for each channel and a bias, for each foreground class."""
        options = {"architecture": "unet_sharp", "base_channels": 32, "adapter": "none"}
        counts = [
            network_without_values((1, 1), (2, 3), gates=gates, **options)
            for gates in ("none", "both")
        ]
        none, both = map(count_all, counts)
        of_class = 4 * 33 + 65 + 129 + 257 + 513
        assert both.shared == none.shared
        added = [b - n for b, n in zip(both.per_domain, none.per_domain, strict=True)]
        assert added == [of_class, 2 * of_class]
        assert count_trunk(counts[0]) == count_trunk(counts[1])

    def test_presence_and_gated_logits(self):
        """Each gate, compared with the independent reference."""
        network = build(gates="both")
        image = np.random.default_rng(3).normal(size=(2, 1, 2, 8, 2))
        values = {k: v.numpy() for k, v in network.variables_by_path().items()}
        settings = {"depth": 2, "pools": (0, 1, 2), "align_corners": False}
        expected = Reference(values, 0, **settings).gates(image)
        heads, found = network.head_and_gate_logits(
            tf.constant(image), domain=0, heads=[(0, 2)], gates=list(expected)
        )
        assert sorted(found) == sorted(GATE_POSITIONS["both"])
        for place, logits_of_gate in expected.items():
            np.testing.assert_allclose(found[place], logits_of_gate, rtol=0, atol=1e-9)
        # Gates do not change the heads.
        logits = network(tf.constant(image), domain=0)
        np.testing.assert_array_equal(heads[0, 2], logits)
        least = np.minimum(sigmoid(expected[0, 2]), sigmoid(expected[2, 0]))
        between = np.sort(least.ravel())[1:3].mean()
        gated = network.gated_logits(
            tf.constant(image), domain=0, threshold=float(between)
        )
        lost = (gated != logits).numpy().all(axis=(1, 2, 3))
        assert lost.tolist() == [[False, *row] for row in (least < between).tolist()]
        assert 0 < lost.sum() < 4

    def test_each_gate_has_its_own_dropout(self):
        network = build(gates="both", base_channels=8)
        image = tf.constant(np.random.default_rng(3).normal(size=(1, 1, 2, 4, 2)))
        run = {"domain": 0, "heads": [(0, 2)], "gates": [(0, 2), (2, 0)]}
        without = network.head_and_gate_logits(image, **run)[1]
        found, same = (
            network.head_and_gate_logits(image, **run, dropout_seed=SEED)[1]
            for _ in range(2)
        )
        for place, values in without.items():
            assert (found[place] != values).numpy().all()
            np.testing.assert_array_equal(found[place], same[place])
        # With the same map and weights, another place has another dropout mask.
        maps = tf.ones((1, 1, 1, 1, 16), tf.float64)
        gate = network.gates[1, 0]
        gate.conv.kernels[0].assign(2.0 ** np.arange(32).reshape(1, 1, 1, 16, 2))
        drawn = detect_classes(
            dict.fromkeys(gate_places("both", 4, True), (gate, maps)),
            domain=0,
            dropout_seed=SEED,
        )
        assert len({float(values[0, 0]) for values in drawn.values()}) == 8
