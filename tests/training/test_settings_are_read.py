"""A setting that nothing reads would have no effect."""

import itertools

import pytest
import tensorflow as tf
import toy

from u2net_tf import adapt, train
from u2net_tf.config.base import Config
from u2net_tf.config.training import AdaptConfig, TrainConfig
from u2net_tf.models.build import build_network
from u2net_tf.models.loading import save_model
from u2net_tf.models.spec import ModelSpec
from u2net_tf.training import batches

# A run with these settings uses all of its parts.
COMMON = {
    name: 0.5 for name in AdaptConfig.settings() if name.endswith("_probability")
} | {
    "steps_per_epoch": 1,
    # The second check reduces the learning rate.
    "max_epochs": 2,
    "patience_epochs": 1,
    "plateau_min_delta": 1e9,
    "validate_every_epochs": 1,
    "eval_cases": 1,
    "distribution": "none",
}


@pytest.fixture
def settings_read(monkeypatch):
    """Names of the settings that were read other than to check or copy a config."""
    names, copying = set(), []

    def spy(self, name):
        if not copying and name in type(self).model_fields:
            names.add(name)
        return object.__getattribute__(self, name)

    def unrecorded(function):
        def call(*arguments, **keywords):
            copying.append(function)
            try:
                return function(*arguments, **keywords)
            finally:
                copying.pop()

        return call

    monkeypatch.setattr(Config, "flat", unrecorded(Config.flat))
    monkeypatch.setattr(Config, "with_changes", unrecorded(Config.with_changes))
    monkeypatch.setattr(Config, "__getattribute__", spy, raising=False)
    return names


@pytest.mark.usefixtures("toy_network", "eager_steps")
def test_train_reads_every_setting(tiny_data, tmp_path, settings_read):
    config = TrainConfig.from_flat(
        {
            **COMMON,
            "data_dir": str(tiny_data.data_dir),
            "model_dir": str(tmp_path),
            "domains": (toy.TWO.name,),
            "base_channels": 4,
        }
    )
    settings_read.clear()
    train.main(config)
    assert TrainConfig.settings().keys() - settings_read == set()


@pytest.mark.usefixtures("plain_implementation", "eager_steps")
def test_adapt_reads_every_setting(tiny_data, tmp_path, settings_read, monkeypatch):
    """Settings of the pipeline are exempt, as the test of `train` covers them."""
    given = []

    def batches_of_noise(domains, manifests, data, *, first_step, share):
        given.append(data)
        cases = tf.constant(domains[0].train[:2])
        return itertools.repeat({**toy.draw_batch(domains[0]), "case": cases})

    monkeypatch.setattr(batches, "training_dataset", batches_of_noise)
    spec = ModelSpec(
        tiny_data.plan.select([toy.ONE.name]),
        pools=(1, 0, 1),
        base_channels=2,
        adapter="none",
    )
    save_model(tmp_path / "parent", spec, build_network(spec))
    config = AdaptConfig.from_flat(
        {
            **COMMON,
            "from_": str(tmp_path / "parent"),
            "domain": toy.TWO.name,
            "data_dir": str(tiny_data.data_dir),
            "model_dir": str(tmp_path / "new"),
        }
    )
    settings_read.clear()
    adapt.main(config)
    (data,) = given
    passed_on = data.settings().keys() - {"patch_size", "resize_method"}
    assert {name: data.flat()[name] for name in passed_on} == {
        name: config.flat()[name] for name in passed_on
    }
    unread = AdaptConfig.settings().keys() - settings_read
    assert unread <= passed_on
