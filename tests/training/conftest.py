import csv
import itertools
import pathlib
import shutil
import zlib

import pytest
import tensorflow as tf
import toy
from command_session import tensorflow_server

from u2net_tf.config.training import TrainConfig
from u2net_tf.input.pipeline import training_dataset
from u2net_tf.input.share import ENTIRE
from u2net_tf.models import loading
from u2net_tf.progress import silent
from u2net_tf.training import batches, runs
from u2net_tf.training.step import Trainer


@pytest.fixture
def toy_network(monkeypatch):
    """Trains the toy network instead of a U2Net."""
    monkeypatch.setattr(runs, "build_network", toy.build_toy_network)
    monkeypatch.setattr(loading, "build_network", toy.build_toy_network)


@pytest.fixture(scope="module")
def eager_steps():
    """Runs steps eagerly; `test_isolation.py` shows that traced ones are equal."""
    with toy.eager_steps():
        yield


@pytest.fixture
def traced_steps(eager_steps, monkeypatch):
    """Traces steps, as users do, in a file that otherwise runs them eagerly."""
    monkeypatch.setattr(Trainer, "step", Trainer.step.__wrapped__)


@pytest.fixture(scope="session")
def run_two_replicas():
    """Runs `two_replicas.py`, which configures devices before TensorFlow starts."""

    def run(*arguments):
        done = tensorflow_server().run("training.two_replicas", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture
def simulate_gpus(monkeypatch):
    """Lets TensorFlow list a number of GPUs."""

    def simulate(number):
        gpus = [tf.config.LogicalDevice(f"GPU:{i}", "GPU") for i in range(number)]
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)

    return simulate


class Batches:
    """The batches of a pipeline, starting at any step; each is made only once."""

    def __init__(self, dataset):
        self._made = []
        self._rest = iter(dataset)

    def starting_at(self, step):
        for index in itertools.count(step):
            while len(self._made) <= index:
                self._made.append(next(self._rest))
            yield self._made[index]


def checksums_of_shards(data_dir, domains, manifests):
    """Checksums of the shards that training reads."""
    return tuple(
        zlib.crc32(pathlib.Path(data_dir, domain.name, name).read_bytes())
        for domain, manifest in zip(domains, manifests, strict=True)
        for name in manifest.shards(domain.train)
    )


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Replaces `training_dataset`: makes every batch once, not for every run.

    A resumed run skips the batches it has already seen; `test_pipeline.py` shows that
    the pipeline itself does so too. Copies of the same shards give the same batches.
    """
    made = {}

    def dataset(domains, manifests, settings, *, first_step, share):
        assert share == ENTIRE
        shards = checksums_of_shards(settings.data_dir, domains, manifests)
        anywhere = settings.with_changes(data_dir="anywhere")
        key = (tuple(domains), anywhere, repr(manifests), shards)
        if key not in made:
            # A test may damage its own shards.
            copy = tmp_path_factory.mktemp("shards") / "data"
            shutil.copytree(settings.data_dir, copy)
            settings = settings.with_changes(data_dir=str(copy))
            made[key] = Batches(training_dataset(domains, manifests, settings))
        return made[key].starting_at(first_step)

    return dataset


@pytest.fixture
def shared_input(monkeypatch, made_once):
    """Runs of the same data and settings share their batches."""
    monkeypatch.setattr(batches, "training_dataset", made_once)


@pytest.fixture(scope="session")
def make_config(tiny_data):
    """Makes a small configuration for `runs.train`; takes other settings by name."""

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
    """Calls `runs.train` with small settings; takes other settings by name."""

    def call(model_dir, *, progress=silent, **values):
        return runs.train(make_config(model_dir, **values), progress=progress)

    return call


@pytest.fixture(scope="session")
def read_rows():
    """Reads `training.csv` without the columns that depend on the clock."""

    def read(model_dir):
        with (pathlib.Path(model_dir) / "training.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            assert float(row.pop("seconds_per_step")) > 0
            assert 0 <= float(row.pop("input_wait_share")) <= 1
        return rows

    return read
