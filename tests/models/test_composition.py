import dataclasses
import functools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.config.inference import ComposeConfig
from u2net_tf.errors import InputError
from u2net_tf.models import checkpoint_replacement, composed_models, composition
from u2net_tf.models.build import build_network
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.loading import load_network, load_spec_and_state, save_model
from u2net_tf.models.run_state import SeenCases

pytestmark = pytest.mark.usefixtures("plain_implementation")

ONE, TWO = toy.ONE, toy.TWO
THREE = dataclasses.replace(TWO, name="Task93_Three")
FOUR = dataclasses.replace(ONE, name="Task94_Four", modalities=("T1", "T2", "T3"))
ADAPTERS = [
    "separable",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("none", "series", "parallel")
    ),
]


def interrupt(*arguments):
    raise KeyboardInterrupt


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def logits_of(spec, network, name):
    domain = spec.plan.index(name)
    generator = np.random.default_rng(1)
    shape = (2, 4, 3, 6, network.num_modalities[domain])
    images = tf.constant(generator.standard_normal(shape), tf.float32)
    return network(images, domain=domain).numpy()


@functools.cache
def outputs_of(spec, network, name):
    """Logits of models whose variables do not change any more."""
    return logits_of(spec, network, name)


def assert_same_logits(model, parent, names):
    for name in names:
        np.testing.assert_array_equal(
            outputs_of(*model, name), outputs_of(*parent, name)
        )


def trunk(model, name):
    spec, network = model
    return network.trunk_domain_variables(spec.plan.index(name))


@pytest.fixture(scope="module")
def parent_of():
    """Adapter -> a model that tests must not change."""
    make = functools.cache(lambda adapter: toy.make_model(adapter=adapter))
    return lambda adapter="separable": make(adapter)


@pytest.fixture(scope="module")
def extended_of(parent_of):
    """Adapter and init -> its model extended by `FOUR`; tests must not change it."""

    @functools.cache
    def extend(adapter, init):
        keras.utils.set_random_seed(7)
        return composition.extend(*parent_of(adapter), FOUR, init=init)

    return extend


@pytest.fixture(scope="module")
def fresh_of():
    """The spec of an extended model -> a new network, drawn from the same seed."""

    @functools.cache
    def build(spec):
        keras.utils.set_random_seed(7)
        return build_network(spec)

    return build


@pytest.mark.parametrize("adapter", ADAPTERS)
class TestExtend:
    @pytest.fixture
    def parent(self, adapter, parent_of):
        """Shared by all tests, see `test_the_parent_is_not_changed`."""
        return parent_of(adapter)

    @pytest.fixture
    def extended(self, adapter, extended_of):
        return functools.partial(extended_of, adapter)

    @pytest.mark.parametrize("init", ["random", "mean", TWO.name])
    def test_does_not_change_the_old_domains(self, parent, extended, init):
        model = extended(init)
        assert model[0].plan.names == (ONE.name, TWO.name, FOUR.name)
        assert_same_logits(model, parent, (ONE.name, TWO.name))
        assert logits_of(*model, FOUR.name).shape == (2, 4, 3, 6, 2)

    def test_init_from_a_domain_copies_its_trunk(self, parent, extended):
        model = extended(TWO.name)
        toy.assert_identical(
            toy.values_of(trunk(model, FOUR.name)),
            toy.values_of(trunk(parent, TWO.name)),
        )

    def test_mean_is_over_all_old_domains(self, parent, extended):
        model = extended("mean")
        old = zip(trunk(parent, ONE.name), trunk(parent, TWO.name), strict=True)
        expected = [(a.numpy().astype(np.float64) + b.numpy()) / 2 for a, b in old]
        for variable, mean in zip(trunk(model, FOUR.name), expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), mean, rtol=1e-6, atol=1e-9)

    def test_random_equals_a_new_network(self, extended, fresh_of):
        model = extended("random")
        fresh = model[0], fresh_of(model[0])
        toy.assert_identical(
            toy.values_of(trunk(model, FOUR.name)),
            toy.values_of(trunk(fresh, FOUR.name)),
        )

    def test_stem_and_head_always_start_at_random(self, extended, fresh_of):
        spec, network = extended("mean")
        fresh = fresh_of(spec)

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
        assert_same_logits(third, parent, (ONE.name, TWO.name))
        assert_same_logits(third, second, (THREE.name,))

    def test_the_parent_is_not_changed(self, parent):
        before = toy.values_of(parent[1].variables)
        composition.extend(*parent, FOUR, init="mean")
        toy.assert_identical(toy.values_of(parent[1].variables), before)

    def test_an_existing_domain_and_an_unknown_init(self, parent):
        with pytest.raises(InputError, match="`domain`: .* Received: Task92_Two"):
            composition.extend(*parent, TWO, init="mean")
        with pytest.raises(InputError) as caught:
            composition.extend(*parent, FOUR, init="Task94_Four")
        assert str(caught.value) == (
            "`init`: expected random, mean or one of Task91_One, Task92_Two. Received: "
            "Task94_Four"
        )


@pytest.mark.parametrize(
    "adapter", ["none", pytest.param("separable", marks=pytest.mark.slow)]
)
def test_models_of_two_labs_are_merged(adapter, parent_of, tmp_path):
    """Each lab adds a domain to the same parent; both are merged, saved and loaded."""
    parent = parent_of(adapter)
    labs = {}
    for folder, domain in (("a", THREE), ("b", FOUR)):
        labs[folder] = composition.extend(*parent, domain, init="mean")
        for variable in labs[folder][1].domain_variables(2):
            variable.assign(variable + 0.3)
    save_model(tmp_path, *composition.compose(labs))
    merged = load_network(tmp_path)[:2]
    assert merged[0].plan.names == (ONE.name, TWO.name, THREE.name, FOUR.name)
    assert_same_logits(merged, parent, (ONE.name, TWO.name))
    assert_same_logits(merged, labs["a"], (THREE.name,))
    assert_same_logits(merged, labs["b"], (FOUR.name,))
    left = composition.compose({"m": merged}, remove=[ONE.name, THREE.name])
    assert left[0].plan.names == (TWO.name, FOUR.name)
    assert_same_logits(left, merged, (TWO.name, FOUR.name))


class TestComposeModels:
    @pytest.mark.slow
    def test_folders_are_merged_into_one(self, parent_of, tmp_path):
        parent = parent_of()
        labs = {"a": composition.extend(*parent, THREE, init="mean"), "b": parent}
        for folder, model in labs.items():
            save_model(tmp_path / folder, *model)
        config = ComposeConfig(
            models=(str(tmp_path / "a"), str(tmp_path / "b")),
            remove=(ONE.name,),
            model_dir=str(tmp_path / "new"),
        )
        found = composition.compose_models(config)
        assert found.domains == (TWO.name, THREE.name)
        assert found.checksums.count("identical") == 2
        *written, path = load_network(tmp_path / "new")
        assert path == found.checkpoint
        assert_same_logits(tuple(written), labs["a"], found.domains)
        with pytest.raises(InputError, match="new: expected a folder without a model"):
            composition.compose_models(config.with_changes(remove=()))

    @pytest.fixture
    def quick_checksums(self, monkeypatch):
        """Computing logits takes most of the time of composing small models."""
        monkeypatch.setattr(
            composition.checksums,
            "of_domains",
            lambda spec, network: dict.fromkeys(spec.plan.names, "0"),
        )

    @pytest.mark.usefixtures("quick_checksums")
    @pytest.mark.parametrize(
        "killed_at",
        [
            pytest.param("saving", marks=pytest.mark.slow),
            "the check of what was saved",
        ],
    )
    def test_can_be_repeated_after_a_kill(
        self, parent_of, tmp_path, monkeypatch, killed_at
    ):
        save_model(tmp_path / "a", *parent_of("none"))
        config = ComposeConfig(
            models=(str(tmp_path / "a"),),
            remove=(ONE.name,),
            model_dir=str(tmp_path / "new"),
        )
        with monkeypatch.context() as patch:
            if killed_at == "saving":
                patch.setattr(checkpoint_replacement.os, "replace", interrupt)
            else:
                # Only the check of the saved model calls it.
                patch.setattr(composed_models, "load_network", interrupt)
            with pytest.raises(KeyboardInterrupt):
                composition.compose_models(config)
        before = files_of(tmp_path / "new")
        found = composition.compose_models(config)
        assert found.domains == (TWO.name,)
        # Its cases are no longer named.
        _, state = load_spec_and_state(tmp_path / "new")
        assert state.initial_cases == (SeenCases(ONE.name, (), False),)
        written = files_of(tmp_path / "new")
        assert len(written) == 2
        if killed_at != "saving":
            assert written == before
        assert composition.compose_models(config) == found
        assert files_of(tmp_path / "new") == written

    def test_models_in_subfolders_are_not_hidden(self, parent_of, tmp_path):
        save_model(tmp_path / "a", *parent_of("none"))
        shutil.copytree(tmp_path / "a", tmp_path / "new" / "inner")
        config = ComposeConfig(
            models=(str(tmp_path / "a"),), model_dir=str(tmp_path / "new")
        )
        with pytest.raises(InputError, match="new: .* without models in its subfold"):
            composition.compose_models(config)
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["inner"]

    @pytest.mark.usefixtures("quick_checksums")
    @pytest.mark.parametrize("change", ["a variable", "the names of cases"])
    def test_another_model_is_not_replaced(self, parent_of, tmp_path, change):
        """Even if it is very similar."""
        save_model(tmp_path / "a", *parent_of("none"))
        spec, network = toy.make_model(adapter="none")
        if change == "a variable":
            spec = without_case_names(spec)
            kernel = network.variables[-1]
            kernel.assign(kernel + 1)
        save_model(tmp_path / "new", spec, network)
        before = files_of(tmp_path / "new")
        config = ComposeConfig(
            models=(str(tmp_path / "a"),), model_dir=str(tmp_path / "new")
        )
        with pytest.raises(InputError, match="new: expected a folder without a model"):
            composition.compose_models(config)
        assert files_of(tmp_path / "new") == before


class TestCompose:
    def test_models_of_two_parents(self, parent_of):
        models = {"a": parent_of(), "b": toy.make_model((THREE,), seed=1)}
        with pytest.raises(
            InputError, match="b: .* shared variables bit-identical to those of a"
        ):
            composition.compose(models)

    def test_different_networks(self, parent_of):
        models = {"a": parent_of(), "b": toy.make_model((THREE,), base_channels=3)}
        with pytest.raises(InputError, match="b: expected base_channels 2 as in a"):
            composition.compose(models)

    def test_a_domain_trained_twice(self, parent_of):
        parent = parent_of()
        twice = {name: composition.extend(*parent, FOUR, init="mean") for name in "ab"}
        kernel = twice["b"][1].domain_variables(2)[0]
        kernel.assign(kernel + 1)
        with pytest.raises(InputError, match="b: .* domain Task94_Four as in a"):
            composition.compose(twice)
        spec, _ = composition.compose(twice, remove=[FOUR.name])
        assert spec.plan.names == (ONE.name, TWO.name)

    def test_removing_an_unknown_domain(self, parent_of):
        with pytest.raises(InputError, match="`remove`: .* Received: Task99"):
            composition.compose({"a": parent_of()}, remove=["Task99"])

    def test_removing_every_domain(self, parent_of):
        with pytest.raises(
            InputError, match="`remove`: expected at least one remaining"
        ):
            composition.compose({"a": parent_of()}, remove=[ONE.name, TWO.name])
