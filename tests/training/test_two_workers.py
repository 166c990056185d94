"""Training on several machines equals training on as many devices of one."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from command_session import tensorflow_server

from u2net_tf.models.checkpoint_paths import checkpoint_folder, list_checkpoints


def run_two_workers(*arguments):
    done = tensorflow_server().run("training.two_workers", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def newest_values(folder):
    """Returns name -> value of the newest checkpoint, with its optimizers."""
    reader = tf.train.load_checkpoint(list_checkpoints(checkpoint_folder(folder))[-1])
    values = {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }
    return {name: each for name, each in values.items() if not isinstance(each, bytes)}


@pytest.mark.parametrize(
    ("what", "folders"),
    [
        ("joint", ["joint"]),
        pytest.param("stopped", ["stopped"], marks=pytest.mark.slow),
        pytest.param(
            "independent",
            ["independent/Task91_One", "independent/Task92_Two"],
            marks=pytest.mark.slow,
        ),
        pytest.param("adapted", ["adapted"], marks=pytest.mark.slow),
    ],
)
def test_the_same_bits_as_two_devices(
    what, folders, tmp_path, tiny_data, run_two_replicas
):
    devices, workers = tmp_path / "devices", tmp_path / "workers"
    devices.mkdir()
    run_two_replicas("run", what, tiny_data.data_dir, devices)
    workers.mkdir()
    if what == "adapted":
        shutil.copytree(devices / "parent", workers / "parent")
    # Starting two workers takes seconds, so that those with faults train jointly first.
    part = ["joint_and_faults"] if what == "joint" else ["run", what]
    run_two_workers(*part, tiny_data.data_dir, workers)
    for folder in folders:
        expected = newest_values(devices / folder)
        found = newest_values(workers / folder)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, name)
        if what != "adapted":
            # The chief wrote each row once.
            rows = [
                (each / folder / "training.csv").read_text().splitlines()
                for each in (devices, workers)
            ]
            assert len(rows[0]) == len(rows[1])
