"""Gates of UNet#: specification, loss, dropout, pruning, composition and prediction."""

import contextlib
import dataclasses
import json
import pathlib
import types
from unittest import mock

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
import toy

from u2net_tf.config.evaluation import EvaluateConfig
from u2net_tf.config.inference import WindowConfig
from u2net_tf.config.network import NetworkConfig
from u2net_tf.config.training import LossConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation import evaluate_model
from u2net_tf.inference.backends import keras as keras_backend
from u2net_tf.inference.backends.keras import KerasBackend, load_predictor
from u2net_tf.losses import segmentation_loss
from u2net_tf.models import checksums, composition
from u2net_tf.models.build import build_network
from u2net_tf.models.loading import load_network, save_model
from u2net_tf.models.pruning import prune
from u2net_tf.models.spec import ModelSpec, spec_from_json, spec_to_json
from u2net_tf.networks.layers.class_gate import ClassGate, detect_classes
from u2net_tf.training.domain_losses import DomainLoss
from u2net_tf.training.gate_loss import (
    NO_GATES,
    GateLoss,
    dropout_seed,
    gate_loss,
    presence_loss,
)
from u2net_tf.training.head_weights import head_weights
from u2net_tf.training.step import Trainer

pytestmark = pytest.mark.usefixtures("plain_implementation")

GATED = {"architecture": "unet_sharp", "depth": 2, "pools": (1, 2, 1), "gates": "both"}
SHALLOW = {**GATED, "depth": 1, "pools": (1, 1, 1)}
NEW = dataclasses.replace(toy.TWO, name="Task93_Three")
SIZE = (2, 4, 2)
PLACES = ((0, 1), (1, 0))


@pytest.fixture(scope="module")
def model():
    return toy.make_model(**GATED)


@pytest.fixture(scope="module")
def shallow():
    return toy.make_model(**SHALLOW)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("gated") / "model"
    save_model(path, *model)
    return path


@pytest.fixture(scope="module")
def without_gates(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "model"
    save_model(path, *toy.make_model(domains=(toy.ONE,), pools=(0, 1, 1)))
    return path


class GatedToy(toy.ToyNetwork):
    """The toy network with a gate that reads the stem's output."""

    def build(self, input_shape=None):
        super().build(input_shape)
        self.gate = ClassGate(self.width, self.num_classes)
        self.gate.build()

    def head_and_gate_logits(
        self, inputs, *, domain, heads, gates=(), dropout_seed=None
    ):
        logits = self(inputs, domain=domain)
        hidden = tf.tensordot(inputs, self.stems[domain].value, 1)
        read = dict.fromkeys(gates, (self.gate, hidden))
        presence = detect_classes(read, domain=domain, dropout_seed=dropout_seed)
        return dict.fromkeys(heads, logits), presence

    def domain_variables(self, domain):
        return [*super().domain_variables(domain), *self.gate.domain_variables(domain)]


def make_trainer(learning_rate=0.0, **options):
    """Makes a trainer of a network whose two domains have equal variables."""
    keras.utils.set_random_seed(0)
    network = GatedToy((1, 1), (2, 2), width=16)
    network.build()
    pairs = [network.domain_variables(index) for index in range(2)]
    for mine, other in zip(*pairs, strict=True):
        other.assign(mine)
    return Trainer(
        network,
        learning_rate=learning_rate,
        weight_decay=0.0,
        head_weights={(0, 1): 1.0},
        **options,
    )


def images(domain, size=(4, 8, 4)):
    shape = (2, *size, domain.num_modalities)
    return tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)


class TestSpec:
    def test_round_trip_and_older_formats(self, model):
        text = spec_to_json(model[0])
        assert spec_from_json(text, "here").gates == "both"
        content = {**json.loads(text), "format": 5}
        del content["gates"]
        assert spec_from_json(json.dumps(content), "here").gates == "none"

    def test_reaches_the_network(self, model):
        assert model[1].get_config()["gates"] == "both"
        config = NetworkConfig(architecture="unet_sharp", gates="deep")
        assert config.options()["gates"] == "deep"

    def test_with_another_architecture_is_an_error(self):
        with pytest.raises(InputError, match="`gates`: expected none, .* u2net"):
            NetworkConfig(gates="both").options()
        with pytest.raises(InputError, match="gates: expected none for .* u2net.* top"):
            ModelSpec(plan=toy.PLAN, pools=(1, 1, 1), gates="top")

    @pytest.mark.slow
    def test_gates_do_not_change_other_initial_weights(self):
        networks = []
        for gates in ("none", "both"):
            keras.utils.set_random_seed(0)
            spec = ModelSpec(
                plan=toy.PLAN, base_channels=2, **{**SHALLOW, "gates": gates}
            )
            networks.append(build_network(spec).variables_by_path())
        without, found = networks
        for path, variable in without.items():
            np.testing.assert_array_equal(found[path], variable)


class TestLoss:
    def test_settings(self, model):
        places = ((0, 1), (0, 2), (1, 0), (2, 0))
        assert gate_loss(LossConfig(), model[0]) == GateLoss(places, 0.1)
        half = LossConfig(gate_loss_weight=0.5)
        assert gate_loss(half, model[0]) == GateLoss(places, 0.5)
        assert gate_loss(LossConfig(gate_loss_weight=0.0), model[0]).places == ()
        pruned = prune(model[0], 2)
        assert gate_loss(LossConfig(), pruned).places == ((0, 2), (2, 0))
        assert head_weights(LossConfig(), pruned) == {(0, 2): 1.0}

    def test_a_weight_without_gates_is_an_error(self, model):
        spec = dataclasses.replace(model[0], gates="none")
        assert gate_loss(LossConfig(), spec) == NO_GATES
        with pytest.raises(InputError, match="`gate_loss_weight`: expected none, as"):
            gate_loss(LossConfig(gate_loss_weight=1.0), spec)

    def test_is_added_to_the_loss_of_the_heads(self, monkeypatch):
        monkeypatch.setattr("u2net_tf.networks.layers.class_gate.DROPOUT_RATE", 0.0)
        trainer = make_trainer(gate_loss=GateLoss(PLACES, 0.5))
        batch = toy.draw_batch(toy.ONE, size=SIZE)
        heads, presence = trainer.network.head_and_gate_logits(
            batch["image"], domain=0, heads=[(0, 1)], gates=PLACES
        )
        labels = batch["labels"]
        expected = segmentation_loss(labels, heads[0, 1]) + 0.25 * sum(
            presence_loss(labels, each) for each in presence.values()
        )
        with toy.eager_steps():
            loss = trainer.step(0, batch)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert abs(loss - segmentation_loss(labels, heads[0, 1])) > 0.01

    def test_unannotated_voxels_do_not_count(self, monkeypatch):
        monkeypatch.setattr("u2net_tf.networks.layers.class_gate.DROPOUT_RATE", 0.0)
        loss_of_gates = GateLoss(PLACES, 0.5)
        trainer = make_trainer(
            gate_loss=loss_of_gates, domain_losses=[DomainLoss(2), DomainLoss()]
        )
        batch = toy.draw_batch(toy.ONE, size=SIZE)
        labels = np.array(batch["labels"])
        labels[0] = 0
        labels[0, 0] = 2
        heads, presence = trainer.network.head_and_gate_logits(
            batch["image"], domain=0, heads=[(0, 1)], gates=PLACES
        )
        expected = segmentation_loss(labels, heads[0, 1], ignore_index=2)
        # The class may be present in the first patch, and is in the second.
        expected += 0.25 * sum(
            presence_loss(labels[1:], each[1:]) for each in presence.values()
        )
        with toy.eager_steps():
            loss = trainer.step(0, {**batch, "labels": tf.constant(labels)})
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def losses(self, domains, *, compiled=False, **options):
        trainer = make_trainer(gate_loss=GateLoss(PLACES, 1.0), **options)
        batch = toy.draw_batch(toy.ONE, size=SIZE)
        with contextlib.nullcontext() if compiled else toy.eager_steps():
            return [trainer.step(domain, batch) for domain in domains]

    @pytest.mark.slow
    def test_dropout_depends_on_seed_domain_and_step(self):
        """Network and batch do not change, and all domains have the same variables."""
        losses = self.losses([0, 0, 0])
        assert len(set(losses)) == 3
        assert self.losses([0, 1, 0])[::2] == losses[:2]
        assert self.losses([1])[0] not in losses
        assert self.losses([0], seed=1)[0] not in losses

    @pytest.mark.slow
    def test_domains_that_share_a_trace_have_different_dropout(self):
        np.testing.assert_allclose(
            self.losses([0, 1, 0], compiled=True), self.losses([0, 1, 0]), rtol=1e-5
        )

    def test_an_empty_patch_has_no_gradient(self):
        trainer = make_trainer(gate_loss=GateLoss(PLACES, 1.0), learning_rate=0.1)
        batch = toy.draw_batch(toy.ONE, size=SIZE)
        before = toy.values_of(trainer.network.variables)
        with toy.eager_steps():
            trainer.step(0, {**batch, "image": tf.zeros_like(batch["image"])})
        toy.assert_identical(before, toy.values_of(trainer.network.variables))

    def test_replicas_have_different_dropout(self):
        key = GateLoss(PLACES, 1.0).dropout_keys(1, [2])[2]
        seeds = [
            dropout_seed(key, tf.constant(steps, tf.int64)).numpy()
            for steps in (0, 0, 1)
        ]
        assert (seeds[0] == seeds[1]).all()
        assert (seeds[0] != seeds[2]).any()
        context = types.SimpleNamespace(replica_id_in_sync_group=1)
        with mock.patch.object(
            tf.distribute, "get_replica_context", return_value=context
        ):
            other = dropout_seed(key, tf.constant(0, tf.int64)).numpy()
        assert (other != seeds[0]).any()

    @pytest.mark.slow
    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_gates_and_their_inputs_are_trained(self, jit_compile):
        """Of a gate that is not part of the loss, only the kernel decays."""
        keras.utils.set_random_seed(1)
        spec = ModelSpec(plan=toy.PLAN, base_channels=2, **SHALLOW)
        network = build_network(spec)
        trainer = Trainer(
            network,
            learning_rate=0.01,
            weight_decay=0.1,
            head_weights={(0, 1): 1.0},
            gate_loss=GateLoss(((1, 0),), 1.0),
            jit_compile=jit_compile,
        )
        before = {
            path: variable.numpy()
            for path, variable in network.variables_by_path().items()
        }
        trainer.step(0, toy.draw_batch(toy.ONE, size=SIZE))
        now = network.variables_by_path()
        changed = {path for path in before if (before[path] != now[path]).any()}
        assert {"gate_1_0/conv/kernel_0", "gate_1_0/conv/bias_0"} <= changed
        assert {p for p in changed if p.startswith("gate_0_1")} == {
            "gate_0_1/conv/kernel_0"
        }
        assert not {p for p in changed if p[-1] == "1"}


class TestPruning:
    @pytest.mark.slow
    @pytest.mark.parametrize("depth", [1, 2])
    def test_keeps_the_gates_of_its_depth(self, model, folder, depth):
        """Their logits are bit-identical to those of the full network."""
        _, full = model
        spec, pruned, _ = load_network(folder, prune_to=depth)
        places = [(0, depth), (depth, 0)]
        assert (spec.gates, list(pruned.gates)) == ("both", places)
        run = {"domain": 0, "heads": [(0, depth)], "gates": places}
        inputs = images(toy.ONE)
        found, expected = (
            network.head_and_gate_logits(inputs, **run) for network in (pruned, full)
        )
        for place in places:
            np.testing.assert_array_equal(found[1][place], expected[1][place])
        np.testing.assert_array_equal(found[0][0, depth], expected[0][0, depth])


class TestUniversal:
    @pytest.mark.slow
    def test_another_domain_has_gates_and_does_not_change_the_others(self, shallow):
        spec, network = shallow
        new_spec, extended = composition.extend(spec, network, NEW, init="mean")
        before = checksums.of_domains(spec, network)
        checksums.compare(before, checksums.of_domains(new_spec, extended))
        assert new_spec.gates == "both"
        kernels = extended.gates[0, 1].conv.kernels
        assert [kernel.shape[-1] for kernel in kernels] == [1, 2, 2]
        inputs = images(toy.TWO)
        presence = [
            each.head_and_gate_logits(
                inputs, domain=1, heads=[], gates=[(0, 1), (1, 0)]
            )[1]
            for each in (network, extended)
        ]
        for place, values in presence[0].items():
            np.testing.assert_array_equal(values, presence[1][place])
        variables = {id(variable) for variable in extended.domain_variables(2)}
        assert id(extended.gates[1, 0].conv.biases[2]) in variables

    def test_models_with_different_gates_cannot_be_composed(self, shallow):
        spec, network = shallow
        other = dataclasses.replace(spec, gates="none")
        with pytest.raises(InputError, match="b: expected gates both as in a"):
            composition.compose({"a": shallow, "b": (other, network)})


class TestPrediction:
    def probabilities(self, folder, threshold, prune_to=None):
        backend = KerasBackend.from_model_dir(
            folder, gate_threshold=threshold, prune_to=prune_to
        )
        windows = images(toy.TWO, size=(4, 8, 8))
        tf.config.run_functions_eagerly(True)
        try:
            return backend.predict_windows(windows, 1)
        finally:
            tf.config.run_functions_eagerly(False)

    @pytest.mark.parametrize(
        "prune_to", [1, pytest.param(None, marks=pytest.mark.slow)]
    )
    def test_a_rejected_class_has_probability_0(self, folder, prune_to):
        without = self.probabilities(folder, None, prune_to)
        everything = self.probabilities(folder, 0.0, prune_to)
        np.testing.assert_array_equal(everything, without)
        nothing = self.probabilities(folder, 1.0, prune_to)
        np.testing.assert_array_equal(nothing[..., 1:], 0)
        np.testing.assert_array_equal(nothing[..., 0], 1)
        assert without[..., 1:].min() > 0

    @pytest.fixture
    def loaded_once(self, model, folder, monkeypatch):
        (index,) = pathlib.Path(folder).glob("checkpoints/*.index")
        found = *model, str(index.with_suffix(""))
        monkeypatch.setattr(keras_backend, "load_network", lambda *_, **options: found)

    @pytest.mark.usefixtures("loaded_once")
    def test_threshold_is_part_of_the_fingerprint(self, folder):
        backends = [
            load_predictor(folder, WindowConfig(gate_threshold=value)).backend
            for value in (None, 0.0, 0.5)
        ]
        assert [backend.gate_threshold for backend in backends] == [None, 0.0, 0.5]
        assert len({backend.fingerprint for backend in backends}) == 3

    @pytest.mark.usefixtures("loaded_once")
    @pytest.mark.parametrize(
        ("place", "domain", "threshold", "warns"),
        [
            ((0, 2), 1, 0.5, True),
            ((2, 0), 1, 0.5, True),
            ((2, 0), 1, None, False),
            # The other domain is not predicted.
            ((2, 0), 0, 0.5, False),
            # It does not affect predictions of the complete network.
            ((0, 1), 1, 0.5, False),
        ],
    )
    def test_a_gate_that_was_not_trained(
        self, model, folder, caplog, place, domain, threshold, warns
    ):
        predictor = load_predictor(folder, WindowConfig(gate_threshold=threshold))
        windows = images(toy.TWO, size=(4, 8, 8)).numpy()
        with toy.set_to_0([model[1].gates[place].conv.biases[domain]]):
            for _ in range(2):
                predictor.backend.predict_windows(windows, 1, few=True)
        words = "a gate has not been trained for Task92_Two (no training step, or alw"
        assert caplog.text.count(words) == warns
        assert caplog.text.count("not been trained") == warns

    def test_model_without_gates_is_an_error(self, without_gates):
        words = f"`gate_threshold`: expected none, as .*{without_gates}.* has no gates"
        with pytest.raises(InputError, match=f"{words}.* Received: 0.5"):
            load_predictor(without_gates, WindowConfig(gate_threshold=0.5))

    def test_is_an_error_before_anything_is_evaluated(self, without_gates, tmp_path):
        config = EvaluateConfig.from_flat(
            {
                "model_dir": (str(without_gates),),
                "output_dir": str(tmp_path / "out"),
                "gate_threshold": 0.5,
            }
        )
        with pytest.raises(InputError, match="`gate_threshold`: expected none"):
            evaluate_model.evaluate_model(config)
        assert not list(tmp_path.glob("out/*"))

    @pytest.mark.parametrize("value", [-0.1, 1.5])
    def test_out_of_range(self, value):
        with pytest.raises(ValueError, match=f"gate_threshold\n.*{value}"):
            WindowConfig(gate_threshold=value)


class TestPresenceLoss:
    LABELS = np.array([[0, 0, 1, 2], [0, 0, 1, 1], [0, 3, 1, 0], [3, 3, 3, 3]])
    LOGITS = np.random.default_rng(0).normal(size=(4, 2))

    def test_is_the_mean_cross_entropy(self):
        targets = np.array([[1, 1], [1, 0]])
        probabilities = scipy.special.expit(self.LOGITS[:2])
        expected = -np.mean(
            np.log(np.where(targets == 1, probabilities, 1 - probabilities))
        )
        labels = self.LABELS[:2].reshape(2, 1, 2, 2)
        found = presence_loss(labels, self.LOGITS[:2])
        np.testing.assert_allclose(found, expected)
        found = presence_loss(labels, self.LOGITS[:2], ignore_index=3)
        np.testing.assert_allclose(found, expected)

    def test_is_unknown_where_voxels_are_not_annotated(self):
        """In the third patch, class 1 is present and class 2 may be."""
        known = np.array([[1, 1], [1, 1], [1, 0], [0, 0]], bool)
        targets = np.array([[1, 1], [1, 0], [1, 0], [0, 0]])
        probabilities = scipy.special.expit(self.LOGITS)
        terms = -np.log(np.where(targets == 1, probabilities, 1 - probabilities))
        labels = self.LABELS.reshape(4, 1, 2, 2)
        found = presence_loss(labels, self.LOGITS, ignore_index=3)
        np.testing.assert_allclose(found, terms[known].mean())
        found = presence_loss(labels[3:], self.LOGITS[3:], ignore_index=3)
        assert found == 0
