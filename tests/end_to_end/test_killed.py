"""Runs killed twenty times end like uninterrupted ones: train, adapt and compose.

Run by `make test-slow`.
"""

import contextlib
import csv
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from event_files import scalars_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = pathlib.Path(__file__).parents[2]
NUM_KILLS = 20
MAX_EPOCHS = 45
# Small, because it starts 22 times; tracing the steps takes longest.
FLAGS = {
    "learning_rate": 0.01,
    "noise_probability": 0.5,
    # With three cases in batches of two, an epoch ends within a pass over the cases.
    "steps_per_epoch": 3,
    "max_epochs": MAX_EPOCHS,
    "validate_every_epochs": 2,
    "eval_cases": 1,
    "keep": 2,
}
NETWORK = {"adapter": "none", "pools": "1,0,1", "base_channels": 2}
# Columns with times.
CLOCKS = ("seconds_per_step", "input_wait_share")


@contextlib.contextmanager
def started(module, model_dir, **flags):
    """Starts the real command; kills it at the end of the context."""
    flags["model_dir"] = model_dir
    with (model_dir.parent / f"{model_dir.name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module]
            + [f"--{name}={value}" for name, value in flags.items()],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def num_rows(model_dir):
    path = model_dir / "training.csv"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def is_saving(model_dir):
    return any((model_dir / "checkpoints").glob(".partial-*"))


def wait(process, condition):
    """Waits until the condition holds or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.0002)


def kill_somewhere(process, model_dir, generator, seconds_to_first_row):
    """Kills the process at any moment, while saving a checkpoint, or after a row."""
    kind = generator.choice(("any", "checkpoint", "checkpoint", "row", "row"))
    if kind == "any":
        time.sleep(generator.uniform(0, seconds_to_first_row))
    for _ in range(0 if kind == "any" else generator.randint(1, 3)):
        rows = num_rows(model_dir)
        if kind == "row":
            wait(process, lambda rows=rows: num_rows(model_dir) > max(rows, 1))
        else:
            wait(process, lambda: not is_saving(model_dir))
            wait(process, lambda: is_saving(model_dir))
    time.sleep({"any": 0, "checkpoint": 0.03, "row": 0.06}[kind] * generator.random())
    process.kill()
    process.wait()
    return kind


def run(module, model_dir, **flags):
    """Runs the command to completion."""
    with started(module, model_dir, **flags) as process:
        status = process.wait()
    assert status == 0, (model_dir.parent / f"{model_dir.name}.log").read_text()


@pytest.fixture(scope="module", params=["u2net_tf.train", "u2net_tf.adapt"])
def runs(request, tiny_data, tmp_path_factory):
    """Folders of an uninterrupted run and of a run that was killed twenty times."""
    work = tmp_path_factory.mktemp("killed")
    uninterrupted, killed = work / "uninterrupted", work / "killed"
    module, flags = request.param, {**FLAGS, "data_dir": tiny_data.data_dir}
    if module == "u2net_tf.adapt":
        parent = {**flags, **NETWORK, "domains": "Task92_Two", "max_epochs": 1}
        run("u2net_tf.train", work / "parent", **parent)
        flags |= {"from": work / "parent", "domain": "Task91_One"}
    else:
        flags |= {**NETWORK, "domains": "Task91_One"}
    begun = time.monotonic()
    with started(module, uninterrupted, **flags) as process:
        wait(process, lambda: num_rows(uninterrupted) > 1)
        seconds_to_first_row = time.monotonic() - begun
        assert process.wait() == 0, (work / "uninterrupted.log").read_text()
    generator = random.Random(7)
    found = []
    for _ in range(NUM_KILLS):
        with started(module, killed, **flags) as process:
            kind = kill_somewhere(process, killed, generator, seconds_to_first_row)
            assert process.returncode < 0, (work / "killed.log").read_text()
        rows, saving = num_rows(killed) - 1, is_saving(killed)
        found.append(f"{kind}: {rows} rows{', in a checkpoint' if saving else ''}")
    print("\n".join(found))
    run(module, killed, **flags)
    log = (work / "killed.log").read_text()
    assert "damaged" not in log, log
    return uninterrupted, killed


def tensors_of(model_dir):
    """Returns all tensors but texts of the last checkpoint."""
    path = str(model_dir / "checkpoints" / f"step-{3 * MAX_EPOCHS}")
    reader = tf.train.load_checkpoint(path)
    names = sorted(reader.get_variable_to_shape_map())
    tensors = {name: np.asarray(reader.get_tensor(name)) for name in names}
    return {name: value for name, value in tensors.items() if value.dtype.kind in "fiu"}


def test_every_bit_of_weights_and_optimizers(runs):
    uninterrupted, killed = map(tensors_of, runs)
    assert uninterrupted.keys() == killed.keys()
    assert {name.split("/")[0] for name in uninterrupted} == {"network", "optimizer"}
    for name, value in uninterrupted.items():
        assert value.tobytes() == killed[name].tobytes(), name


def test_the_same_checkpoints_are_kept(runs):
    names = [sorted(p.name for p in (run / "checkpoints").iterdir()) for run in runs]
    assert names[0] == names[1]
    # Two, and possibly the best as a third, with two files each.
    assert len(names[0]) in (4, 6)


def test_no_files_are_left_over(runs):
    names = [{path.name for path in run.iterdir()} for run in runs]
    assert names[0] == {"checkpoints", "flags.txt", "tensorboard", "training.csv"}
    assert names[1] == names[0]


def lines_of(model_dir):
    with (model_dir / "training.csv").open(newline="") as stream:
        return [
            [cell for name, cell in row.items() if name not in CLOCKS]
            for row in csv.DictReader(stream)
        ]


def test_training_csv(runs):
    uninterrupted, killed = ((run / "training.csv").read_text() for run in runs)
    assert uninterrupted.count("\n") == killed.count("\n") == MAX_EPOCHS + 1
    assert uninterrupted.splitlines()[0] == killed.splitlines()[0]
    assert lines_of(runs[0]) == lines_of(runs[1])


def test_curves_in_tensorboard(runs):
    uninterrupted, killed = map(scalars_of, runs)
    assert uninterrupted.keys() == killed.keys()
    assert len(uninterrupted) == 7
    steps = list(range(3, 3 * MAX_EPOCHS + 1, 3))
    for tag, points in uninterrupted.items():
        found = [step for step, _ in killed[tag]]
        assert found == (steps[1::2] if tag.startswith("dice/") else steps), tag
        if tag.removeprefix("run/") not in CLOCKS:
            assert killed[tag] == points, tag


def test_the_best_is_the_same(runs):
    from u2net_tf.models.loading import load_network

    first, second = (load_network(run, checkpoint="best")[2] for run in runs)
    assert pathlib.Path(first).name == pathlib.Path(second).name
    bests = []
    for run in runs:
        path = str(run / "checkpoints" / f"step-{3 * MAX_EPOCHS}")
        reader = tf.train.load_checkpoint(path)
        text = reader.get_tensor("state")
        bests.append(json.loads(text)["best"])
    assert bests[0] == bests[1]


def test_compose(tmp_path):
    """Kills it at random moments, mostly while it writes or verifies the model."""
    artefacts = ROOT / "tests" / "artefacts" / "0.1.0" / "models"
    flags = {"models": f"{artefacts / 'adapted'},{artefacts / 'separable'}"}
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    begun = time.monotonic()
    with started("u2net_tf.compose", uninterrupted, **flags) as process:
        wait(process, (uninterrupted / "checkpoints").is_dir)
        seconds_to_saving = time.monotonic() - begun
        assert process.wait() == 0, (tmp_path / "uninterrupted.log").read_text()
        seconds = time.monotonic() - begun
    generator = random.Random(7)
    for index in range(NUM_KILLS):
        if index % 4 == 0:
            # Starts from scratch, because a complete model is kept.
            shutil.rmtree(killed, ignore_errors=True)
        with started("u2net_tf.compose", killed, **flags) as process:
            if index % 4 < 2:
                wait(process, (killed / "checkpoints").is_dir)
                time.sleep(0.05 * generator.random())
            else:
                time.sleep(generator.uniform(0.5 * seconds_to_saving, seconds))
    run("u2net_tf.compose", killed, **flags)
    made = [
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")}
        for folder in (uninterrupted, killed)
    ]
    assert made[0] == made[1]
    assert len(made[0]) == 2
    assert "Traceback" not in (tmp_path / "killed.log").read_text()
