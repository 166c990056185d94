import csv
import pathlib

import pytest
import toy
from command_session import tensorflow_server

from u2net_tf.config.training import TrainConfig
from u2net_tf.input.pipeline import training_dataset
from u2net_tf.models import checkpoints
from u2net_tf.training import loop, start


@pytest.fixture
def toy_network(monkeypatch):
    """Trains the toy network instead of a U2Net."""
    monkeypatch.setattr(start, "build_network", toy.build_toy_network)
    monkeypatch.setattr(checkpoints, "build_network", toy.build_toy_network)


@pytest.fixture(scope="session")
def run_two_replicas():
    """Runs `two_replicas.py`: devices are made before TensorFlow starts."""

    def run(*arguments):
        done = tensorflow_server().run("training.two_replicas", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def traced_once():
    """Stands in for `training_dataset`: traces a pipeline once, not for every run.

    For a run that goes on it skips the batches before, as `test_pipeline.py` has the
    pipeline itself do.
    """
    made = {}

    def dataset(domains, manifests, settings, *, first_step):
        key = (tuple(domains), settings, repr(manifests))
        if key not in made:
            made[key] = training_dataset(domains, manifests, settings)
        return made[key].skip(first_step)

    return dataset


@pytest.fixture
def shared_input(monkeypatch, traced_once):
    """Runs of the same data and settings share their input pipeline."""
    monkeypatch.setattr(loop, "training_dataset", traced_once)


@pytest.fixture(scope="session")
def make_config(tiny_data):
    """Small settings of `start.train`, by name; takes others."""

    def make(model_dir, *, data_dir=None, **values):
        return TrainConfig.from_flat(
            {
                "model_dir": str(model_dir),
                "data_dir": str(data_dir or tiny_data.data_dir),
                "steps_per_epoch": 4,
                "max_epochs": 1,
                "validate_every_epochs": 0,
                "eval_cases": 1,
                "learning_rate": 0.02,
                "base_channels": 4,
                "pools": (1, 1, 1),
                "distribution": "none",
                **values,
            }
        )

    return make


@pytest.fixture(scope="session")
def train(make_config):
    """Calls `start.train` with small settings; takes others by name."""

    def call(model_dir, **values):
        return start.train(make_config(model_dir, **values))

    return call


@pytest.fixture(scope="session")
def read_rows():
    """Reads `training.csv`, without what depends on the clock."""

    def read(model_dir):
        with (pathlib.Path(model_dir) / "training.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            assert float(row.pop("seconds_per_step")) > 0
            assert 0 <= float(row.pop("input_wait_share")) <= 1
        return rows

    return read
