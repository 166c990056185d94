"""Training, pruning, composition and adaptation of UNet#."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.config.inference import ComposeConfig
from u2net_tf.config.network import ComplexityConfig, NetworkConfig
from u2net_tf.config.training import LossConfig
from u2net_tf.errors import InputError
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.losses import segmentation_loss
from u2net_tf.models import checksums, composition
from u2net_tf.models.build import build_network, min_parameters
from u2net_tf.models.loading import load_network, save_model
from u2net_tf.models.pruning import prune
from u2net_tf.models.spec import (
    ModelSpec,
    check_same_spec,
    common_pools,
    spec_from_json,
    spec_to_json,
)
from u2net_tf.models.untrained import warn_of_untrained
from u2net_tf.networks.parameter_counts import count_all
from u2net_tf.training.head_weights import head_weights
from u2net_tf.training.step import Trainer

pytestmark = pytest.mark.usefixtures("plain_implementation")

SHARP = {"architecture": "unet_sharp", "depth": 2, "pools": (1, 2, 1)}
NEW = dataclasses.replace(toy.TWO, name="Task93_Three")


@pytest.fixture(scope="module")
def model():
    return toy.make_model(**SHARP)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("sharp") / "model"
    save_model(path, *model)
    return path


def images(domain, seed=0):
    shape = (1, 4, 8, 4, domain.num_modalities)
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


class TestSpec:
    def test_round_trip(self, model):
        spec = dataclasses.replace(model[0], align_corners=True)
        assert spec_from_json(spec_to_json(spec), "here") == spec

    def test_every_setting_reaches_the_network(self):
        spec = ModelSpec(
            plan=toy.PLAN,
            base_channels=3,
            adapter="none",
            align_corners=True,
            deep_supervision=False,
            **SHARP,
        )
        network = build_network(spec, gradient_checkpointing="blocks")
        config = network.get_config()
        assert config["gradient_checkpointing"] == "blocks"
        for name in ("depth", "pools", "align_corners", "deep_supervision"):
            assert config[name] == getattr(spec, name)
        assert (network.base_channels, network.adapter) == (3, "none")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"depth": None}, "depth: expected a number for unet_sharp"),
            ({"architecture": "u2net"}, "depth: .* Received: 2 for u2net"),
            ({"pools": (1, 3, 1)}, "pools: expected at most 2 .*`depth` is 2"),
            ({"second_up_conv": "full"}, "second_up_conv: expected None for the"),
            ({"base_channels": 1025}, "base_channels: expected at most 1024 with pool"),
            ({"base_channels": 1025, "pools": (1, 1, 1)}, "at most 1024 with a depth"),
        ],
    )
    def test_rejects(self, changes, message):
        with pytest.raises(InputError, match=message):
            ModelSpec(**{"plan": toy.PLAN, **SHARP, **changes})

    @pytest.mark.parametrize("name", ["align_corners", "deep_supervision"])
    def test_a_u2net_has_no_such_setting(self, name):
        value = name == "align_corners"
        with pytest.raises(InputError, match=f"{name}: expected {not value} for the"):
            ModelSpec(plan=toy.PLAN, pools=(1, 1, 1), **{name: value})

    @pytest.mark.parametrize("adapter", ["none", "separable", "series", "parallel"])
    def test_lower_bound_of_the_parameters(self, adapter):
        spec = ModelSpec(plan=toy.PLAN, base_channels=8, adapter=adapter, **SHARP)
        found = count_all(build_network(spec)).total
        assert min_parameters(spec) < found < 2 * min_parameters(spec)


class TestSettings:
    def test_depth_is_that_of_the_paper_by_default(self):
        config = NetworkConfig(architecture="unet_sharp", align_corners=True)
        assert config.options()["depth"] == 4
        assert config.options()["align_corners"] is True

    @pytest.mark.parametrize(
        ("config", "name"),
        [
            (NetworkConfig(depth=3), "depth"),
            (NetworkConfig(align_corners=True), "align_corners"),
            (ComplexityConfig(depth=3), "depth"),
            (
                NetworkConfig(architecture="unet_sharp", last_decoder_kernel=3),
                "last_decoder_kernel",
            ),
        ],
    )
    def test_with_another_architecture_is_an_error(self, config, name):
        with pytest.raises(InputError, match=f"`{name}`: expected none, as `archit"):
            config.options()

    @pytest.mark.parametrize("pools", [None, (1, 1, 3)])
    def test_pools_above_the_depth(self, pools):
        deep = dataclasses.replace(toy.ONE, pools=(0, 0, 3))
        plan = dataclasses.replace(toy.PLAN, domains=(deep,))
        with pytest.raises(InputError, match="`pools`: expected at most 2 .*`depth`"):
            common_pools(plan, pools, depth=2)
        assert common_pools(plan, pools, depth=3)[2] == 3

    def test_pools_that_fit_a_plan_are_suggested(self):
        deep = dataclasses.replace(toy.ONE, pools=(0, 2, 3))
        plan = dataclasses.replace(toy.PLAN, domains=(deep,))
        with pytest.raises(
            InputError, match=r"in the plan of .*\. Set `pools` to 0,2,2, or"
        ):
            common_pools(plan, None, depth=2)


class TestLoss:
    @pytest.mark.parametrize("weight", [-1.0, 1e-60, 1e39])
    def test_weights_that_could_vanish_or_overflow(self, weight):
        words = "0 or a number from 1e-06 to 1e.06"
        for settings in (
            {"top_head_weights": (1.0, weight)},
            {"deep_head_weights": (weight,)},
            {"gate_loss_weight": weight},
        ):
            with pytest.raises(ValueError, match=words):
                LossConfig(**settings)

    def test_default_is_the_mean_of_all_heads(self, model):
        weights = head_weights(LossConfig(), model[0])
        assert weights == dict.fromkeys([(0, 1), (0, 2), (1, 1), (2, 0)], 0.25)

    def test_weights_belong_to_heads_in_order(self, model):
        loss = LossConfig(top_head_weights=(1.0, 4.0), deep_head_weights=(0.0, 3.0))
        assert head_weights(loss, model[0]) == {
            (0, 1): 0.125,
            (0, 2): 0.5,
            (2, 0): 0.375,
        }

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"top_head_weights": (1.0,)}, "`top_head_weights`: expected 2 numbers"),
            ({"deep_head_weights": (1.0,) * 3}, "`deep_head_weights`: expected 2 num"),
            ({"top_head_weights": (1.0, 0.0)}, "expected a last number above 0"),
        ],
    )
    def test_rejects(self, model, weights, message):
        with pytest.raises(InputError, match=message):
            head_weights(LossConfig(**weights), model[0])

    def test_a_network_with_one_head_has_none(self, model):
        loss = LossConfig(top_head_weights=(1.0,))
        u2net = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1))
        for spec in (u2net, prune(model[0], 1)):
            assert head_weights(LossConfig(), spec) is None
            with pytest.raises(InputError, match="`top_head_weights`: expected none"):
                head_weights(loss, spec)

    @pytest.mark.slow
    def test_a_step_s_loss_and_its_gradient(self, model):
        """Of a head without a weight, only the kernel decays."""
        spec, _ = model
        keras.utils.set_random_seed(1)
        network = build_network(spec)
        weights = {(0, 1): 0.25, (0, 2): 0.75}
        trainer = Trainer(
            network,
            learning_rate=0.01,
            weight_decay=0.1,
            head_weights=weights,
            domains=[0],
        )
        batch = toy.draw_batch(toy.ONE, size=(2, 4, 2))
        logits = network.head_logits(batch["image"], domain=0, heads=list(weights))
        expected = sum(
            weight * segmentation_loss(batch["labels"], logits[head])
            for head, weight in weights.items()
        )
        with toy.eager_steps():
            loss = trainer.step(0, batch)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        for place, head in network.heads.items():
            assert np.any(head.biases[0].numpy()) == (place in weights)


class TestPruning:
    @pytest.mark.parametrize("depth", [1, pytest.param(2, marks=pytest.mark.slow)])
    def test_output_is_bit_identical_to_that_of_the_head(self, model, folder, depth):
        spec, full = model
        pruned_spec, pruned, _ = load_network(folder, prune_to=depth)
        assert pruned_spec == prune(spec, depth)
        for index, domain in enumerate(spec.plan.domains):
            inputs = images(domain)
            expected = full.head_logits(inputs, domain=index, heads=[(0, depth)])
            found = pruned(inputs, domain=index)
            np.testing.assert_array_equal(found, expected[0, depth])

    def test_unused_parts_are_not_built(self, model, folder):
        _, pruned, _ = load_network(folder, prune_to=1)
        assert set(pruned.nodes) == {(0, 0), (1, 0), (0, 1)}
        assert set(pruned.heads) == {(0, 1)}
        assert pruned.variables_by_path().keys() < model[1].variables_by_path().keys()

    @pytest.mark.slow
    def test_a_pruned_model_predicts_the_same_and_cannot_be_pruned_again(
        self, model, folder, tmp_path
    ):
        config = ComposeConfig(
            models=(str(folder),), model_dir=str(tmp_path / "one"), prune_to=1
        )
        composition.compose_models(config)
        spec, network, _ = load_network(tmp_path / "one")
        assert (spec.depth, spec.pools, spec.deep_supervision) == (1, (1, 1, 1), False)
        inputs = images(toy.ONE)
        expected = model[1].head_logits(inputs, domain=0, heads=[(0, 1)])[0, 1]
        np.testing.assert_array_equal(network(inputs, domain=0), expected)
        assert load_network(tmp_path / "one", prune_to=1)[0] == spec
        words = f"`prune_to`: expected at most 2, the depth of {folder}/checkpoints/"
        with pytest.raises(InputError, match=words):
            load_network(folder, prune_to=3)
        with pytest.raises(InputError, match="expected 2, to which the model has"):
            prune(prune(model[0], 2), 1)

    @pytest.mark.parametrize(
        ("place", "prune_to", "domain", "warns"),
        [
            ((0, 1), 1, 1, True),
            # A different head, another domain, and a head that does not predict.
            ((0, 2), 1, 1, False),
            ((0, 1), 1, 0, False),
            ((0, 1), None, 1, False),
        ],
    )
    def test_a_head_that_was_not_trained(
        self, model, tmp_path, caplog, place, prune_to, domain, warns
    ):
        with toy.set_to_0([model[1].heads[place].biases[1]]):
            path = save_model(tmp_path / "model", *model)
        spec, network, _ = load_network(tmp_path / "model", prune_to=prune_to)
        warn_of_untrained(network, spec, domain, path)
        words = (
            f"{path}: the head on X^{{0,1}} has not been trained for Task92_Two (no "
            "training step, or always the weight 0 in top_head_weights), so its labels"
        )
        assert (words in caplog.text) == warns
        assert ("not been trained" in caplog.text) == warns

    def test_a_u2net_cannot_be_pruned(self):
        spec = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1))
        with pytest.raises(InputError, match="only unet_sharp .* 1 for x, a u2net"):
            prune(spec, 1, "x")

    def test_fingerprints_depend_on_the_depth(self, folder):
        backends = [
            KerasBackend.from_model_dir(folder, prune_to=depth)
            for depth in (None, 1, 2)
        ]
        assert len({backend.fingerprint for backend in backends}) == 3


@pytest.fixture(scope="module")
def shallow():
    return toy.make_model(architecture="unet_sharp", depth=1)


class TestUniversal:
    @pytest.mark.slow
    @pytest.mark.parametrize("init", ["mean", toy.TWO.name])
    def test_another_domain_does_not_change_the_others(self, shallow, init):
        spec, network = shallow
        new_spec, extended = composition.extend(spec, network, NEW, init=init)
        before = checksums.of_domains(spec, network)
        checksums.compare(before, checksums.of_domains(new_spec, extended))
        sources = [0, 1] if init == "mean" else [1]
        old = [network.trunk_domain_variables(index) for index in sources]
        for variable, *values in zip(
            extended.trunk_domain_variables(2), *old, strict=True
        ):
            arrays = [value.numpy() for value in values]
            expected = np.mean(arrays, axis=0, dtype=np.float64)
            np.testing.assert_allclose(variable, expected, rtol=1e-6)

    @pytest.mark.slow
    def test_a_step_of_the_new_domain_changes_only_its_own_variables(self, shallow):
        spec, network = shallow
        new_spec, extended = composition.extend(spec, network, NEW, init="random")
        trainer = Trainer(
            extended,
            learning_rate=0.01,
            weight_decay=0.1,
            head_weights=head_weights(LossConfig(), new_spec),
            domains=[2],
            train_shared=False,
        )
        own = toy.values_of(extended.domain_variables(2))
        with toy.eager_steps():
            trainer.step(2, toy.draw_batch(NEW, size=(2, 4, 2)))
        checksums.compare(
            checksums.of_domains(spec, network),
            checksums.of_domains(new_spec, extended),
        )
        now = toy.values_of(extended.domain_variables(2))
        # A bias before a norm has no gradient.
        kernels = [(a, b) for a, b in zip(own, now, strict=True) if a.ndim > 1]
        assert not any(np.array_equal(*pair) for pair in kernels)

    @pytest.mark.slow
    @pytest.mark.parametrize("adapter", ["none", "separable", "series", "parallel"])
    def test_models_of_two_labs_are_merged(self, adapter):
        """Each lab adds a domain to one parent; merging does not change any head."""
        parent = toy.make_model(architecture="unet_sharp", depth=1, adapter=adapter)
        other = dataclasses.replace(toy.ONE, name="Task94_Four")
        labs = {
            name: composition.extend(*parent, domain, init="mean")
            for name, domain in (("a", NEW), ("b", other))
        }
        merged = composition.compose(labs)
        after = checksums.of_domains(*merged)
        assert tuple(after) == (*toy.PLAN.names, NEW.name, other.name)
        for model in (parent, *labs.values()):
            checksums.compare(checksums.of_domains(*model), after)
        network = merged[1]
        inputs = images(toy.ONE)
        heads = list(network.heads)
        assert len(heads) == 2
        for original in (parent[1], labs["b"][1]):
            expected = original.head_logits(inputs, domain=0, heads=heads)
            found = network.head_logits(inputs, domain=0, heads=heads)
            for head in heads:
                np.testing.assert_array_equal(found[head], expected[head])

    def test_different_networks_are_not_merged(self, model, shallow):
        """The error names the setting that explains the other differences."""
        for other, message in (
            (model, "b: expected depth 1 as in a. Received: 2"),
            (
                toy.make_model(pools=(1, 1, 1)),
                "b: expected architecture unet_sharp as in a. Received: u2net",
            ),
        ):
            with pytest.raises(InputError, match=message):
                composition.compose({"a": shallow, "b": other})

    def test_resumes_only_with_the_same_architecture(self):
        sharp = ModelSpec(plan=toy.PLAN, **SHARP)
        with pytest.raises(InputError, match="expected architecture unet_sharp. Rec"):
            check_same_spec(sharp, ModelSpec(plan=toy.PLAN, pools=(1, 1, 1)))

    @pytest.mark.slow
    def test_a_domain_is_removed(self, shallow):
        spec, network = shallow
        remaining = composition.compose({"a": shallow}, [toy.ONE.name])
        assert checksums.of_domains(*remaining) == {
            toy.TWO.name: checksums.of_domain(spec, network, 1)
        }
