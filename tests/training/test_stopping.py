"""A run that is asked to stop saves its last step and resumes as if uninterrupted."""

import os
import pathlib
import signal

import pytest
import toy
from absl import logging

from u2net_tf.config.training import TrainConfig
from u2net_tf.errors import InputError, StoppedEarlyError
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.checkpoint_reading import CheckpointReader
from u2net_tf.stop_signals import DeferredSignals
from u2net_tf.training import batches, runs, stop_requests
from u2net_tf.training.step import Trainer
from u2net_tf.training.stop_requests import StopRequests

pytestmark = pytest.mark.usefixtures("toy_network", "shared_input", "eager_steps")

# With two domains, the first epoch ends in the middle of a round.
SETTINGS = {
    "steps_per_epoch": 3,
    "max_epochs": 3,
    "validate_every_epochs": 2,
    "keep": 1,
}


def final_state(folder, read_rows):
    """Returns what a run has written except times: rows, names, newest checkpoint."""
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    newest = max(int(n[5:].split(".")[0]) for n in names if n.startswith("step-"))
    reader = CheckpointReader(str(folder / "checkpoints" / f"step-{newest}"))
    tensors = {name: reader._reader.get_tensor(name).tobytes() for name in reader._keys}
    state = reader.state()
    clocks = ("seconds_per_step", "input_wait_share")
    logs = {k: v for k, v in state.logs.items() if k not in clocks}
    return tensors, logs, state.best, state.schedule, names, read_rows(folder)


def checkpoints_of(folder):
    return sorted(path.stem for path in (folder / "checkpoints").glob("*.index"))


@pytest.fixture(scope="module")
def uninterrupted(make_config, made_once, tmp_path_factory, read_rows):
    """The final state of a run that nothing stops."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "build_network", toy.build_toy_network)
        patch.setattr(batches, "training_dataset", made_once)
        runs.train(make_config(folder, **SETTINGS))
    return final_state(folder, read_rows)


@pytest.fixture
def at_step(monkeypatch):
    """Calls a function within the steps of these numbers, counted from 1 per test."""
    original = Trainer.step

    def install(function, *numbers):
        taken = []

        def step(self, domain, batch):
            taken.append(domain)
            if len(taken) in numbers or not numbers:
                function()
            return original(self, domain, batch)

        monkeypatch.setattr(Trainer, "step", step)

    return install


def signals():
    return StopRequests(signals=DeferredSignals())


def stopped(config, stop):
    with pytest.raises(StoppedEarlyError) as caught:
        runs.train(config, stop=stop)
    return str(caught.value), caught.value.exit_status


@pytest.mark.parametrize(
    ("number", "step", "where", "kept"),
    [
        (signal.SIGTERM, 2, "step 2 of epoch 1", ["step-2"]),
        pytest.param(
            signal.SIGUSR1,
            5,
            "step 2 of epoch 2",
            ["step-3", "step-5"],
            marks=pytest.mark.slow,
        ),
        # At the last step of an epoch, which is saved anyway.
        (signal.SIGINT, 3, "epoch 1", ["step-3"]),
    ],
    ids=["SIGTERM", "SIGUSR1", "SIGINT"],
)
def test_a_signal(
    number, step, where, kept, make_config, tmp_path, uninterrupted, read_rows, at_step
):
    config = make_config(tmp_path, **SETTINGS)
    at_step(lambda: os.kill(os.getpid(), number), step)
    message, status = stopped(config, signals())
    assert message == (
        f"stopped by {number.name}: step {step} ({where}) is saved in {tmp_path}; "
        "rerun the same command to resume"
    )
    assert status == 128 + number
    assert checkpoints_of(tmp_path) == kept
    assert len(read_rows(tmp_path)) == step // 3
    runs.train(config)
    assert final_state(tmp_path, read_rows) == uninterrupted


@pytest.mark.slow
def test_after_each_step(make_config, tmp_path, uninterrupted, read_rows, at_step):
    """Each run stops after one step, at every combination of domain and place."""
    config = make_config(tmp_path, **SETTINGS, max_minutes=1.0)
    now = [0.0]

    def a_minute_passes():
        now[0] += 60

    at_step(a_minute_passes)
    for step in range(1, 6):
        message, status = stopped(config, StopRequests(1.0, clock=lambda: now[0]))
        assert f"stopped by `max_minutes`=1: step {step} (" in message
        assert status == 75
        # A checkpoint within an epoch is deleted once there is a newer one.
        assert len(checkpoints_of(tmp_path)) <= 3
    # A run that has reached its end succeeds, even if its time is up.
    run = runs.train(config, stop=StopRequests(4.0, clock=lambda: now[0]))
    assert (run.step, run.state.epochs) == (9, 3)
    assert final_state(tmp_path, read_rows) == uninterrupted


def test_within_a_validation(
    make_config, tmp_path, uninterrupted, read_rows, monkeypatch
):
    config = make_config(tmp_path, **SETTINGS)
    original = Predictor.classes

    def classes(self, image, domain):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, image, domain)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "classes", classes)
        message, _ = stopped(config, signals())
        assert "step 6 (step 3 of epoch 2) is saved" in message
        # And again, although no step of the epoch is left.
        assert stopped(config, signals())[0] == message
    assert checkpoints_of(tmp_path) == ["step-3", "step-6"]
    assert len(read_rows(tmp_path)) == 1
    runs.train(config)
    assert final_state(tmp_path, read_rows) == uninterrupted


def test_before_the_first_step(make_config, tmp_path):
    stop = StopRequests(1.0, clock=iter((0.0, 60.0)).__next__)
    message, _ = stopped(make_config(tmp_path / "model"), stop)
    assert message == (
        "stopped by `max_minutes`=1: no step was taken, and there is no checkpoint in "
        f"{tmp_path / 'model'} yet; rerun the same command to resume"
    )


def test_a_signal_is_not_handled_without_stop_requests(make_config, tmp_path, at_step):
    """Another program that calls training handles its own signals."""
    at_step(lambda: os.kill(os.getpid(), signal.SIGINT), 2)
    # Background jobs of a shell ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            runs.train(make_config(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)


def test_max_minutes_without_a_command(make_config, tmp_path):
    with pytest.raises(StoppedEarlyError, match="max_minutes`=1e-09: no step"):
        runs.train(make_config(tmp_path, max_minutes=1e-9))
    independent = {"independent": True, "max_minutes": 1e-9}
    with pytest.raises(StoppedEarlyError, match=f"{toy.ONE.name}"):
        runs.train_independently(make_config(tmp_path / "b", **independent))


def test_max_minutes_is_at_least_0(make_config, tmp_path):
    with pytest.raises((InputError, ValueError), match="max_minutes"):
        make_config(tmp_path, max_minutes=-1.0)


def test_skipped_steps_before_the_stop_count(
    make_config, tmp_path, read_rows, monkeypatch
):
    half = {"precision": "mixed_float16", "steps_per_epoch": 3, "max_epochs": 1}
    original, taken = Trainer.step, []

    def step(self, domain, batch):
        taken.append(domain)
        if len(taken) in (1, 3):
            self.loss_scale.skipped_steps.assign_add(1)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, domain, batch)

    monkeypatch.setattr(Trainer, "step", step)
    stopped(make_config(tmp_path, **half), signals())
    runs.train(make_config(tmp_path, **half))
    assert [row["steps_left_out"] for row in read_rows(tmp_path)] == ["2"]


def test_fewer_steps_per_epoch_than_completed(
    make_config, tmp_path, read_rows, at_step
):
    at_step(lambda: os.kill(os.getpid(), signal.SIGTERM), 2)
    stopped(make_config(tmp_path, steps_per_epoch=3), signals())
    run = runs.train(make_config(tmp_path, steps_per_epoch=1))
    assert [(row["epoch"], row["step"]) for row in read_rows(tmp_path)] == [("1", "2")]
    assert run.step == 2


class TestLog:
    @pytest.fixture
    def lines(self, monkeypatch):
        """The logged messages, each with the checkpoints that existed at the time."""
        lines = []

        def info(text, *values):
            lines.append((text % values, checkpoints_of(pathlib.Path(lines.folder))))

        class Lines(list):
            folder = "nowhere"

        lines = Lines()
        monkeypatch.setattr(logging, "info", info)
        return lines

    def test_an_epoch_is_logged_when_it_is_saved(self, make_config, tmp_path, lines):
        lines.folder = tmp_path
        runs.train(make_config(tmp_path, steps_per_epoch=2, max_epochs=2))
        saved = {text[:12]: names for text, names in lines if text[:6] == "epoch "}
        assert saved == {
            "epoch 1 of 2": ["step-2"],
            "epoch 2 of 2": ["step-2", "step-4"],
        }

    def test_compiling_and_validating_are_logged_with_their_time(
        self, make_config, tmp_path, lines
    ):
        config = make_config(
            tmp_path, steps_per_epoch=3, max_epochs=2, validate_every_epochs=2
        )
        runs.train(config)
        texts = [text for text, _ in lines]
        for name in (toy.ONE.name, toy.TWO.name):
            begun = texts.index(f"compiling the step of {name}")
            assert texts[begun + 1].startswith(f"compiled the step of {name} in ")
            assert texts[begun + 1].endswith(" s, including its first run")
        assert [t for t in texts if t.startswith("validation after epoch 2: ")]
        assert len([t for t in texts if "the step of" in t]) == 4

    def test_a_signal_is_logged_immediately(self, lines, monkeypatch):
        monkeypatch.setattr(logging, "warning", logging.info)
        stop_requests._log_signal(signal.SIGTERM, False)
        stop_requests._log_signal(signal.SIGINT, True)
        first, second = (text for text, _ in lines)
        assert first.startswith("received SIGTERM: finishing the current ")
        assert second == "received SIGINT again: ending without saving"


def test_a_command_handles_signals_and_its_limit():
    stop = stop_requests.from_command(0.0)
    assert isinstance(stop._signals, DeferredSignals)
    stop.check()
    assert TrainConfig.settings()["max_minutes"].default == 0
    with pytest.raises(stop_requests.StopRequested):
        stop_requests.from_command(1e-9).check()
