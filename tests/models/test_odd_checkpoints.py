"""Checkpoints with odd values in their model or state load or raise `InputError`."""

import json
import random

import pytest
import toy
from json_mutations import change_each, mutate

from u2net_tf.config.training import RunningConfig
from u2net_tf.errors import InputError
from u2net_tf.models import checkpoint_writing, loading
from u2net_tf.models.build import min_parameters
from u2net_tf.models.checkpoint_paths import checkpoint_folder
from u2net_tf.models.checkpoints import Checkpoints, network_paths
from u2net_tf.models.run_state import STATE, PartialEpoch, RunState, ScheduleState
from u2net_tf.models.spec import MODEL
from u2net_tf.training import schedule
from u2net_tf.training.epoch_metrics import EpochTotals
from u2net_tf.training.monitor import Monitor, columns

MAX_CHARACTERS = 3000
SPEC, TRAINER = toy.make_trainer()
LOGS = {"epoch": 1, **dict.fromkeys(columns(SPEC.plan), 0.5), "step": 3}
RUN = RunState(
    step=3,
    schedule=ScheduleState(0.1, epochs=1, moving_average=0.5, window=(0.5, 0.25)),
    logs=LOGS,
    partial_epoch=PartialEpoch(
        dict.fromkeys(SPEC.plan.names, (0.5, 0.25)), 1.0, 2.0, 0.5, 1
    ),
    invariants={"precision": "float32"},
)
CONTENTS = {"model": MODEL.to_dict(SPEC), "state": STATE.to_dict(RUN)}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    def build(spec, **kwargs):
        # Networks that are too large for the checkpoint are never built.
        assert min_parameters(spec) < 10**7
        return toy.build_toy_network(SPEC, **kwargs)

    monkeypatch.setattr(loading, "build_network", build)


def write(folder, texts):
    path = checkpoint_folder(folder)
    path.mkdir(parents=True, exist_ok=True)
    variables = {**network_paths(TRAINER.network), **TRAINER.variables_by_path()}
    checkpoint_writing.write(texts["model"], texts["state"], variables, path, 3)


def resume(folder):
    """Does what a run does before its first step and after an epoch."""
    run = Checkpoints(
        folder,
        SPEC,
        TRAINER.network,
        TRAINER.variables_by_path(),
        keep=1,
        invariants=RUN.invariants,
    )
    state = run.restore()
    totals = EpochTotals(SPEC.plan.names, state.partial_epoch)
    if totals.num_steps:
        totals.add("Task91_One", 1.0, seconds_waiting=1.0, seconds_computing=1.0)
        totals.input_wait_share()
        totals.loss()
    if state.schedule is not None:
        for changes in ({}, {"learning_rate_schedule": "polynomial"}):
            config = RunningConfig.from_flat(
                {"data_dir": "a", "model_dir": "b", "max_epochs": 9, **changes}
            )
            schedule.advance(config, schedule.resumed(config, state.schedule), 0.5)
    if state.logs is not None:
        monitor = Monitor(folder, SPEC.plan, first_step=state.step)
        monitor.write(state.logs)
        monitor.close()


def check(folder, kind, odd):
    texts = {name: json.dumps(content) for name, content in CONTENTS.items()}
    write(folder, {**texts, kind: odd})
    uses = (
        lambda: loading.load_spec(folder),
        lambda: loading.load_network(folder),
        lambda: loading.load_network(folder, checkpoint="best"),
        lambda: loading.models_by_domain(folder),
        lambda: resume(folder),
    )
    for use in uses:
        try:
            use()
        except InputError as error:
            message = str(error)
            message.encode()
            assert 20 < len(message) < MAX_CHARACTERS


def test_an_unchanged_checkpoint_is_resumed(tmp_path):
    """Otherwise the tests with mutations would be meaningless."""
    write(tmp_path, {name: json.dumps(text) for name, text in CONTENTS.items()})
    assert loading.load_spec(tmp_path) == SPEC
    resume(tmp_path)


@pytest.mark.parametrize("kind", CONTENTS)
def test_every_third_value(tmp_path, kind):
    for odd in [*change_each(random.Random(kind), CONTENTS[kind])][::3]:
        check(tmp_path, kind, json.dumps(odd))


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONTENTS)
def test_each_value_in_turn(tmp_path, kind):
    rng = random.Random(f"often {kind}")
    for _ in range(5):
        for odd in change_each(rng, CONTENTS[kind]):
            check(tmp_path, kind, json.dumps(odd))


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONTENTS)
def test_several_values(tmp_path, kind):
    rng = random.Random(kind)
    for _ in range(150):
        check(tmp_path, kind, mutate(rng, CONTENTS[kind]))
