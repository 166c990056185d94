import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.command import InputError
from u2net_tf.models import checksums, composition
from u2net_tf.models.checkpoints import load_network, save_model
from u2net_tf.models.model_spec import build_network

pytestmark = pytest.mark.usefixtures("plain_route")

ONE, TWO = toy.ONE, toy.TWO
THREE = dataclasses.replace(TWO, name="Task93_Three")
FOUR = dataclasses.replace(ONE, name="Task94_Four", modalities=("T1", "T2", "T3"))
ADAPTERS = [
    "separable",
    "none",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("series", "parallel")),
]


def logits_of(spec, network, name):
    domain = spec.plan.index(name)
    generator = np.random.default_rng(1)
    shape = (2, 4, 3, 6, network.num_modalities[domain])
    images = tf.constant(generator.standard_normal(shape), tf.float32)
    return network(images, domain=domain).numpy()


def assert_serves_alike(model, parent, names):
    for name in names:
        np.testing.assert_array_equal(logits_of(*model, name), logits_of(*parent, name))
        before, after = (
            checksums.of_domain(spec, network, spec.plan.index(name))
            for spec, network in (model, parent)
        )
        assert before == after


def trunk(model, name):
    spec, network = model
    return network.trunk_domain_variables(spec.plan.index(name))


@pytest.fixture(scope="module")
def parent_of():
    """Adapter -> a model that tests leave as it is."""
    return functools.cache(lambda adapter: toy.make_model(adapter=adapter))


@pytest.mark.parametrize("adapter", ADAPTERS)
class TestExtend:
    @pytest.fixture
    def parent(self, adapter, parent_of):
        """One for all tests, as `test_the_parent_is_left_as_it_was` allows."""
        return parent_of(adapter)

    @pytest.mark.parametrize("init", ["random", "mean", TWO.name])
    def test_leaves_the_old_domains_as_they_were(self, parent, init):
        model = composition.extend(*parent, FOUR, init=init)
        assert model[0].plan.names == (ONE.name, TWO.name, FOUR.name)
        assert_serves_alike(model, parent, (ONE.name, TWO.name))
        assert logits_of(*model, FOUR.name).shape == (2, 4, 3, 6, 2)

    def test_from_a_domain_takes_its_trunk(self, parent):
        model = composition.extend(*parent, FOUR, init=TWO.name)
        toy.assert_identical(
            toy.values_of(trunk(model, FOUR.name)),
            toy.values_of(trunk(parent, TWO.name)),
        )

    def test_mean_is_that_of_all_old_domains(self, parent):
        model = composition.extend(*parent, FOUR, init="mean")
        old = zip(trunk(parent, ONE.name), trunk(parent, TWO.name), strict=True)
        expected = [(a.numpy().astype(np.float64) + b.numpy()) / 2 for a, b in old]
        for variable, mean in zip(trunk(model, FOUR.name), expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), mean, rtol=1e-6, atol=1e-9)

    def test_random_is_that_of_a_new_network(self, parent):
        keras.utils.set_random_seed(7)
        model = composition.extend(*parent, FOUR, init="random")
        keras.utils.set_random_seed(7)
        fresh = model[0], build_network(model[0])
        toy.assert_identical(
            toy.values_of(trunk(model, FOUR.name)),
            toy.values_of(trunk(fresh, FOUR.name)),
        )

    def test_stem_and_head_start_at_random_whatever_the_trunk_does(self, parent):
        keras.utils.set_random_seed(7)
        spec, network = composition.extend(*parent, FOUR, init="mean")
        keras.utils.set_random_seed(7)
        fresh = build_network(spec)

        def outside_of_the_trunk(network):
            trunk = {id(variable) for variable in network.trunk_domain_variables(2)}
            own = network.domain_variables(2)
            return [variable for variable in own if id(variable) not in trunk]

        # Kernel, bias and two of a norm in the stem, kernel and bias in the head.
        assert len(outside_of_the_trunk(network)) == 6
        toy.assert_identical(
            toy.values_of(outside_of_the_trunk(network)),
            toy.values_of(outside_of_the_trunk(fresh)),
        )

    def test_a_second_and_a_third_domain(self, parent):
        second = composition.extend(*parent, THREE, init="mean")
        third = composition.extend(*second, FOUR, init=THREE.name)
        assert third[0].plan.names == (ONE.name, TWO.name, THREE.name, FOUR.name)
        assert_serves_alike(third, parent, (ONE.name, TWO.name))
        assert_serves_alike(third, second, (THREE.name,))

    def test_the_parent_is_left_as_it_was(self, parent):
        before = toy.values_of(parent[1].variables)
        composition.extend(*parent, FOUR, init="mean")
        toy.assert_identical(toy.values_of(parent[1].variables), before)

    def test_a_domain_that_is_there_and_one_to_start_from_that_is_not(self, parent):
        with pytest.raises(InputError, match="--domain: .* found Task92_Two"):
            composition.extend(*parent, TWO, init="mean")
        with pytest.raises(InputError) as caught:
            composition.extend(*parent, FOUR, init="Task94_Four")
        assert str(caught.value) == (
            "--init: expected random, mean or one of Task91_One, Task92_Two, found "
            "Task94_Four"
        )


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_two_labs_and_one_model(adapter, tmp_path):
    """Each adds a domain to the same parent; merged, saved, loaded, one taken out."""
    parent = toy.make_model(adapter=adapter)
    labs = {}
    for folder, domain in (("a", THREE), ("b", FOUR)):
        labs[folder] = composition.extend(*parent, domain, init="mean")
        for variable in labs[folder][1].domain_variables(2):
            variable.assign(variable + 0.3)
    save_model(tmp_path, *composition.compose(labs))
    merged = load_network(tmp_path)[:2]
    assert merged[0].plan.names == (ONE.name, TWO.name, THREE.name, FOUR.name)
    assert_serves_alike(merged, parent, (ONE.name, TWO.name))
    assert_serves_alike(merged, labs["a"], (THREE.name,))
    assert_serves_alike(merged, labs["b"], (FOUR.name,))
    left = composition.compose({"m": merged}, remove=[ONE.name, THREE.name])
    assert left[0].plan.names == (TWO.name, FOUR.name)
    assert_serves_alike(left, merged, (TWO.name, FOUR.name))


class TestCompose:
    def test_models_of_two_parents(self):
        models = {"a": toy.make_model(seed=0), "b": toy.make_model((THREE,), seed=1)}
        with pytest.raises(
            InputError, match="b: .* shared variables of a, bit for bit"
        ):
            composition.compose(models)

    def test_networks_that_differ(self):
        models = {"a": toy.make_model(), "b": toy.make_model((THREE,), base_channels=3)}
        with pytest.raises(InputError, match="b: expected base_channels 2 as in a"):
            composition.compose(models)

    def test_a_domain_trained_twice(self):
        parent = toy.make_model()
        twice = {name: composition.extend(*parent, FOUR, init="mean") for name in "ab"}
        kernel = twice["b"][1].domain_variables(2)[0]
        kernel.assign(kernel + 1)
        with pytest.raises(InputError, match="b: .* domain Task94_Four as in a"):
            composition.compose(twice)
        spec, _ = composition.compose(twice, remove=[FOUR.name])
        assert spec.plan.names == (ONE.name, TWO.name)

    def test_of_a_domain_that_no_model_serves(self):
        with pytest.raises(InputError, match=r"--remove: .* found \['Task99'\]"):
            composition.compose({"a": toy.make_model()}, remove=["Task99"])

    def test_of_nothing(self):
        with pytest.raises(InputError, match="--remove: expected a domain to be left"):
            composition.compose({"a": toy.make_model()}, remove=[ONE.name, TWO.name])
