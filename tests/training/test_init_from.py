"""Training that starts from the weights of a model."""

import dataclasses
import shutil

import numpy as np
import pytest
import toy

from u2net_tf.errors import InputError
from u2net_tf.models.loading import load_network, load_spec_and_state, save_model
from u2net_tf.models.run_state import SeenCases
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.training import runs

pytestmark = pytest.mark.usefixtures("toy_network", "shared_input", "eager_steps")
# Adam's steps are at most as long as the learning rate.
STILL = {"learning_rate": 1e-9, "min_learning_rate": 1e-10, "steps_per_epoch": 1}


def weights_of(model_dir):
    _, network, _ = load_network(model_dir)
    return {path: v.numpy() for path, v in network.variables_by_path().items()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_config):
    folder = tmp_path_factory.mktemp("source") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "build_network", toy.build_toy_network)
        runs.train(make_config(folder, seed=5, steps_per_epoch=1))
    return folder


def test_weights_are_those_of_the_model(train, source, tmp_path):
    train(tmp_path / "a", init_from=str(source), **STILL)
    assert_close(weights_of(tmp_path / "a"), weights_of(source))
    train(tmp_path / "b", **STILL)
    trunk = weights_of(tmp_path / "b")["trunk"] - weights_of(source)["trunk"]
    assert np.abs(trunk).max() > 0.1


def test_the_cases_of_the_model_are_recorded(train, source, tmp_path):
    train(tmp_path / "a", **STILL)
    _, state = load_spec_and_state(tmp_path / "a")
    assert state.initial_cases == ()
    seen = tuple(
        SeenCases(domain.name, domain.train, True) for domain in toy.PLAN.domains
    )
    options = {"init_from": str(source), **STILL}
    train(tmp_path / "b", **options)
    # Also by a resumed run.
    for epochs in (1, 2):
        train(tmp_path / "b", **options, max_epochs=epochs)
        spec, state = load_spec_and_state(tmp_path / "b")
        assert state.initial_cases == seen
        assert state.step == epochs
    assert all(any(domain.train) for domain in spec.plan.domains)


def test_optimizers_start_anew(train, source, tmp_path):
    run = train(tmp_path / "a", init_from=str(source), **STILL)
    assert run.step == run.state.epochs == 1


def test_a_resumed_run_does_not_need_the_model(train, source, tmp_path):
    copy = shutil.copytree(source, tmp_path / "copy")
    options = {"init_from": str(copy), **STILL}
    train(tmp_path / "a", **options)
    first = weights_of(tmp_path / "a")
    shutil.rmtree(copy)
    run = train(tmp_path / "a", **options, max_epochs=2)
    assert run.step == 2
    assert_close(weights_of(tmp_path / "a"), first)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_keeps_its_kind_of_initial_weights(train, source, tmp_path, first):
    options = [{"init_from": str(source)}, {}]
    if not first:
        options.reverse()
    train(tmp_path / "a", **options[0], **STILL)
    kinds = ["a model", "not given"]
    expected, received = kinds[::-1] if first else kinds
    words = f"expected init_from {expected}. Received: {received}"
    with pytest.raises(InputError, match=words):
        train(tmp_path / "a", **options[1], **STILL, max_epochs=2)


def test_another_model_has_no_effect_later(train, source, tmp_path, caplog):
    train(tmp_path / "a", init_from=str(source), **STILL)
    train(tmp_path / "a", init_from="gone", **STILL, max_epochs=2)
    assert "`init_from` is used at the start of a run only, so" in caplog.text
    assert f"was {source}, now gone" in caplog.text
    # The model that was used stays recorded.
    assert f"--init_from={source}\n" in (tmp_path / "a" / "flags.txt").read_text()


@pytest.mark.parametrize(
    "received",
    ["a model", pytest.param("independent models", marks=pytest.mark.slow)],
)
def test_independent_models(make_config, source, tmp_path, received):
    init_from = source
    if received == "independent models":
        init_from = tmp_path / "before"
        runs.train_independently(
            make_config(init_from, independent=True, seed=5, steps_per_epoch=1)
        )
    config = make_config(
        tmp_path / "a", independent=True, init_from=str(init_from), **STILL
    )
    runs.train_independently(config)
    for domain in (toy.ONE.name, toy.TWO.name):
        found = weights_of(tmp_path / "a" / domain)
        if received == "a model":
            expected = weights_of(source)
            index = toy.PLAN.index(domain)
            expected = {
                name: expected[name.replace("_0", f"_{index}")] for name in found
            }
        else:
            expected = weights_of(init_from / domain)
        assert_close(found, expected)
    # Those that have been started need no initial weights any more.
    shutil.rmtree(tmp_path / "before", ignore_errors=True)
    runs.train_independently(config.with_changes(max_epochs=2))


@pytest.mark.parametrize(
    ("base_channels", "modalities", "words"),
    [
        (2, toy.TWO.modalities, "Task92_Two: expected base_channels 4"),
        (4, toy.TWO.modalities[::-1], "Task92_Two: expected the modalities T2"),
    ],
)
def test_all_are_checked_before_the_first_is_trained(
    make_config, tmp_path, base_channels, modalities, words
):
    for domain, width in (
        (toy.ONE, 4),
        (dataclasses.replace(toy.TWO, modalities=modalities), base_channels),
    ):
        spec = ModelSpec(Plan((domain,)), pools=(1, 1, 1), base_channels=width)
        folder = tmp_path / "before" / domain.name
        save_model(folder, spec, toy.build_toy_network(spec))
    config = make_config(
        tmp_path / "a", independent=True, init_from=str(tmp_path / "before"), **STILL
    )
    with pytest.raises(InputError, match=f"`init_from`: .*{words}"):
        runs.train_independently(config)
    assert not (tmp_path / "a").exists()
