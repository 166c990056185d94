"""Initial weights of a network from another model."""

import dataclasses
import shutil

import numpy as np
import pytest
import toy

from u2net_tf.errors import InputError
from u2net_tf.models import initial_weights as module
from u2net_tf.models.build import build_network
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.initial_weights import copy_initial_weights, source_of_weights
from u2net_tf.models.loading import load_spec, save_model
from u2net_tf.models.run_state import RunState, SeenCases
from u2net_tf.plan.domains import Plan

pytestmark = pytest.mark.usefixtures("plain_implementation")
THREE = dataclasses.replace(toy.TWO, name="Task93_Three")


def save(folder, spec, network):
    save_model(folder, spec, network)
    return spec, network


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Folder, specification and network of a model of two domains."""
    folder = tmp_path_factory.mktemp("source") / "model"
    return folder, *save(folder, *toy.make_model())


def values_of(variables):
    return [variable.numpy() for variable in variables]


def assert_equal(found, expected):
    for one, other in zip(values_of(found), values_of(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("adapter", ["separable", "none"])
def test_domains_are_found_by_name(adapter, tmp_path):
    source_spec, source = save(tmp_path / "a", *toy.make_model(adapter=adapter))
    spec, network = toy.make_model((THREE, toy.TWO), adapter=adapter, seed=1)
    own = values_of(network.domain_variables(0))
    in_trunk = {id(variable) for variable in network.trunk_domain_variables(0)}
    copy_initial_weights(tmp_path / "a", spec, network)
    assert_equal(network.shared_variables, source.shared_variables)
    assert_equal(
        network.domain_variables(1),
        source.domain_variables(source_spec.plan.index(toy.TWO.name)),
    )
    # Stem and head of a new domain are those that it had.
    pairs = zip(network.domain_variables(0), own, strict=True)
    others = [(v, before) for v, before in pairs if id(v) not in in_trunk]
    assert others
    for variable, before in others:
        np.testing.assert_array_equal(variable.numpy(), before)
    sources = zip(*(source.trunk_domain_variables(i) for i in (0, 1)), strict=True)
    for found, pair in zip(network.trunk_domain_variables(0), sources, strict=True):
        mean = np.mean(values_of(pair), axis=0)
        np.testing.assert_allclose(found.numpy(), mean, rtol=1e-6, atol=1e-7)


def test_the_source_may_have_other_patches(source):
    folder, source_spec, original = source
    plan = Plan(
        tuple(dataclasses.replace(d, batch_size=5) for d in source_spec.plan.domains)
    )
    spec = dataclasses.replace(
        source_spec, plan=plan, patch_size=(16, 16, 16), resize_method="cubic"
    )
    network = build_network(spec)
    copy_initial_weights(folder, spec, network)
    assert_equal(network.variables, original.variables)


def test_cases_are_those_of_the_weights(source, tmp_path, monkeypatch):
    """Also if training writes another checkpoint after they were read."""
    folder, spec, _ = source
    shutil.copytree(folder, tmp_path / "a")
    later = dataclasses.replace(toy.TWO, train=("later",))
    save(tmp_path / "b", *toy.make_model((toy.ONE, later)))
    original = module.load_network

    def load_network(model_dir):
        found = original(model_dir)
        for path in (tmp_path / "b" / "checkpoints").glob("step-0.*"):
            name = path.name.replace("step-0", "step-1", 1)
            shutil.copy(path, tmp_path / "a" / "checkpoints" / name)
        return found

    monkeypatch.setattr(module, "load_network", load_network)
    seen = copy_initial_weights(tmp_path / "a", spec, build_network(spec))
    assert load_spec(tmp_path / "a").plan.domains[1].train == ("later",)
    assert [each.cases for each in seen] == [toy.ONE.train, toy.TWO.train]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_channels": 4}, "expected base_channels 4, .*network. Received: 2"),
        ({"adapter": "none"}, "expected adapter none, .*network. Received: separable"),
        ({"pools": (1, 1, 1)}, r"expected pools \(1, 1, 1\), .*Received: \(1, 0, 1\)"),
    ],
)
def test_of_another_architecture(source, changes, words):
    folder, spec, _ = source
    spec = dataclasses.replace(spec, **changes)
    with pytest.raises(InputError, match=f"`init_from`: .*step-0: {words}"):
        copy_initial_weights(folder, spec, build_network(spec))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modalities": ("ADC", "T2")}, "modalities ADC, T2 of .*Received: T2, ADC"),
        (
            {"labels": (toy.TWO.labels[0], *toy.TWO.labels[:0:-1])},
            "classes background, core, rim of .* Received: background, rim, core",
        ),
    ],
)
def test_of_another_task_of_the_same_name(source, changes, words):
    folder, _, _ = source
    spec, network = toy.make_model((dataclasses.replace(toy.TWO, **changes),))
    before = values_of(network.variables)
    with pytest.raises(InputError, match=f"`init_from`: .*expected the {words}"):
        copy_initial_weights(folder, spec, network)
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_held_out_cases_that_the_source_was_trained_on_are_reported(source, caplog):
    folder, _, _ = source
    one = dataclasses.replace(
        toy.ONE, train=("one_3",), validation=("one_0", "one_4"), test=("one_2",)
    )
    spec, network = toy.make_model((one, toy.TWO, THREE))
    caplog.set_level("WARNING", logger="absl")
    copy_initial_weights(folder, spec, network)
    (message,) = caplog.messages
    assert "step-0 was trained on 2 cases of Task91_One that the plan holds" in message
    assert message.endswith(": one_0, one_2")


def test_without_case_names_these_are_unknown(tmp_path, caplog):
    spec, network = toy.make_model()
    save_model(tmp_path / "a", without_case_names(spec, [toy.TWO.name]), network)
    caplog.set_level("WARNING", logger="absl")
    seen = copy_initial_weights(tmp_path / "a", spec, network)
    (message,) = caplog.messages
    assert "step-0 does not name all cases of Task92_Two that it was trai" in message
    assert seen == (
        SeenCases(toy.ONE.name, toy.ONE.train, True),
        SeenCases(toy.TWO.name, (), False),
    )


def test_cases_of_earlier_models_are_seen(tmp_path, caplog):
    spec, network = toy.make_model((toy.ONE,))
    earlier = (
        SeenCases(toy.ONE.name, ("one_5",), True),
        SeenCases(toy.TWO.name, toy.TWO.test, True),
    )
    saver = Checkpoints(tmp_path / "a", spec, network, {}, keep=1)
    saver.save(RunState(initial_cases=earlier))
    caplog.set_level("WARNING", logger="absl")
    seen = copy_initial_weights(tmp_path / "a", *toy.make_model())
    assert seen == (
        SeenCases(toy.ONE.name, ("one_5", *toy.ONE.train), True),
        earlier[1],
    )
    # The model has no domain Task92_Two any more.
    for message, domain in zip(caplog.messages, (toy.ONE, toy.TWO), strict=True):
        assert f"trained on {len(domain.test)} case" in message
        assert message.endswith(f"unseen cases: {', '.join(domain.test)}")


def test_the_domains_are_logged(source, caplog):
    folder, _, _ = source
    caplog.set_level("INFO", logger="absl")
    for domains, expected in (
        ((toy.ONE, toy.TWO), "variables and those of Task91_One, Task92_Two of {}"),
        (
            (toy.ONE, THREE),
            "variables and those of Task91_One of {}; those of Task93_Three from the "
            "mean of its domains",
        ),
        (
            (THREE,),
            "variables of {}; those of Task93_Three from the mean of its domains",
        ),
    ):
        caplog.clear()
        copy_initial_weights(folder, *toy.make_model(domains))
        checkpoint = folder / "checkpoints" / "step-0"
        expected = expected.format(checkpoint)
        assert f"initial weights: shared {expected}" in caplog.messages


def test_independent_models(source, tmp_path):
    folder, _, _ = source
    assert source_of_weights(folder, ["any"]) == folder
    with pytest.raises(InputError, match="expected a model written by"):
        source_of_weights(tmp_path, [toy.ONE.name])
    for domain in (toy.ONE, toy.TWO):
        save_model(tmp_path / domain.name, *toy.make_model((domain,)))
    found = source_of_weights(tmp_path, [toy.TWO.name])
    assert found == tmp_path / toy.TWO.name
    # A network of both needs a model.
    both = [toy.ONE.name, toy.TWO.name]
    assert source_of_weights(tmp_path, both) == tmp_path
    words = "one of them of Task93.*Received: independent models of Task91_One, Task92"
    with pytest.raises(InputError, match=words):
        source_of_weights(tmp_path, ["Task93_Three"])
