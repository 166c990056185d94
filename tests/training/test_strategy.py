"""The strategy is made first: one for several machines cannot be made later."""

import dataclasses
import json

import pytest
import tensorflow as tf
import toy
from command_server import arguments_of
from command_session import tensorflow_server

from u2net_tf.errors import InputError
from u2net_tf.models.build import build_network
from u2net_tf.models.loading import save_model
from u2net_tf.models.spec import ModelSpec
from u2net_tf.training import strategy
from u2net_tf.training.cluster import ALONE


def test_several_workers_need_the_variable(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match="TF_CONFIG. Received: nothing"):
        strategy.cluster_of("multi_worker_mirrored")


def test_training_on_one_machine_only_although_there_are_others(monkeypatch):
    cluster = {"worker": ["one:1", "two:1"]}
    task = {"type": "worker", "index": 1}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert strategy.cluster_of("auto").index == 1
    assert strategy.cluster_of("none") == ALONE
    assert strategy.workers_of(tf.distribute.get_strategy()).count == 1


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("train", {"pools": "1,1,1"}),
        ("train", {"independent": True}),
        ("adapt", {"domain": toy.TWO.name}),
    ],
)
@pytest.mark.usefixtures("plain_implementation")
def test_is_made_before_devices_are_touched(command, flags, tiny_data, tmp_path):
    if command == "adapt":
        plan = dataclasses.replace(tiny_data.plan, domains=tiny_data.plan.domains[:1])
        spec = ModelSpec(plan, pools=(1, 0, 1), base_channels=2, adapter="none")
        save_model(tmp_path / "parent", spec, build_network(spec))
        flags = {**flags, "from": tmp_path / "parent"}
    done = tensorflow_server().run(
        "training.first_touch",
        command,
        *arguments_of(
            {
                **flags,
                "data_dir": tiny_data.data_dir,
                "model_dir": tmp_path / "new",
                "distribution": "mirrored",
            }
        ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "first: mirrored\n"
