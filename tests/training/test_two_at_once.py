"""Two runs that train in one folder: the second is refused and does no damage."""

import os
import re
import subprocess
import sys

import pytest
from test_locks import ROOT

from u2net_tf import locks
from u2net_tf.models.checkpoint_paths import checkpoint_folder, list_checkpoints
from u2net_tf.models.checkpoint_reading import check_intact
from u2net_tf.models.loading import load_network
from u2net_tf.progress import silent


@pytest.mark.usefixtures("toy_network", "shared_input", "eager_steps")
@pytest.mark.slow
def test_the_second_is_refused_at_once(
    train, tiny_data, tmp_path, run_warm, read_rows, caplog
):
    refused = []

    def start_another(iterable=None, desc=None, **options):
        if desc == "epoch 2 of 3":
            done = run_warm(
                "u2net_tf.train",
                status=1,
                data_dir=tiny_data.data_dir,
                model_dir=tmp_path / "model",
            )
            refused.append(done.stderr)
        return silent(iterable, desc, **options)

    train(tmp_path / "model", max_epochs=3, keep=3, progress=start_another)
    (message,) = refused
    # The lines before it are messages of libraries.
    assert re.match(
        f"error: {tmp_path / 'model'}: expected a folder that no other run writes to. "
        f"Received: process {os.getpid()} on ",
        message.splitlines()[-1],
    )
    assert [row["epoch"] for row in read_rows(tmp_path / "model")] == ["1", "2", "3"]
    paths = list_checkpoints(checkpoint_folder(tmp_path / "model"))
    assert len(paths) == 3
    for path in paths:
        check_intact(path)
    assert not list((tmp_path / "model").glob(".*"))
    # The first run equals one without a second.
    train(tmp_path / "alone", max_epochs=3, keep=3)
    assert read_rows(tmp_path / "model") == read_rows(tmp_path / "alone")
    assert "damaged" not in caplog.text


@pytest.mark.usefixtures("toy_network", "shared_input", "eager_steps")
def test_a_model_is_read_while_it_is_trained(train, tmp_path):
    train(tmp_path)
    with locks.locked(tmp_path):
        assert load_network(tmp_path)[2].endswith("step-4")


FLAGS = {
    "domains": "Task91_One",
    "adapter": "none",
    "pools": "1,0,1",
    "base_channels": 2,
    "steps_per_epoch": 3,
    "validate_every_epochs": 0,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_second_command_before_and_after_a_kill_of_the_first(
    tiny_data, tmp_path, read_rows
):
    model_dir = tmp_path / "model"
    flags = {**FLAGS, "data_dir": tiny_data.data_dir, "model_dir": model_dir}

    def start(max_epochs):
        return subprocess.Popen(
            [sys.executable, "-m", "u2net_tf.train", f"--max_epochs={max_epochs}"]
            + [f"--{name}={value}" for name, value in flags.items()],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )

    first = start(1_000_000)
    while not (model_dir / locks.HOLDER).exists():
        assert first.poll() is None
    second = start(1_000_000)
    _, message = second.communicate()
    assert second.returncode == 1
    assert f"Received: process {first.pid} on " in message
    assert message.count("\n") == 1
    while not (model_dir / "training.csv").exists() or len(read_rows(model_dir)) < 2:
        assert first.poll() is None
    first.kill()
    first.communicate()
    num_epochs = len(read_rows(model_dir)) + 2
    third = start(num_epochs)
    _, message = third.communicate()
    assert third.returncode == 0, message
    assert f"taking over the lock left by process {first.pid} on " in message
    epochs = [int(row["epoch"]) for row in read_rows(model_dir)]
    assert epochs == list(range(1, num_epochs + 1))
    for path in list_checkpoints(checkpoint_folder(model_dir)):
        check_intact(path)
    assert not list(model_dir.glob(".*"))
