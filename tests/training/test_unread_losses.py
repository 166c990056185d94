"""Reading losses some steps later does not change the results of a run.

On a GPU, losses are read later so that the GPU is not idle meanwhile; here, the losses
of up to three steps on the CPU are unread.
"""

import functools
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.config.training import RunConfig
from u2net_tf.errors import InputError, StoppedEarlyError, StoppedError
from u2net_tf.progress import silent
from u2net_tf.stop_signals import DeferredSignals
from u2net_tf.training import batches, loop, runs
from u2net_tf.training.epoch_steps import EpochSteps
from u2net_tf.training.step import Trainer
from u2net_tf.training.stop_requests import StopRequests

pytestmark = pytest.mark.usefixtures("toy_network", "shared_input", "later")
SETTINGS = {"steps_per_epoch": 5, "max_epochs": 2, "keep": 9}
MAX_UNREAD = 3


@pytest.fixture
def later(monkeypatch):
    """Allows the losses of three steps to be unread, and runs steps eagerly."""
    steps = functools.partial(EpochSteps, max_unread=MAX_UNREAD)
    monkeypatch.setattr(loop, "EpochSteps", steps)
    original = Trainer.start_step

    def start_step(self, domain, batch):
        tf.config.run_functions_eagerly(True)
        try:
            return original(self, domain, batch)
        finally:
            tf.config.run_functions_eagerly(False)

    monkeypatch.setattr(Trainer, "start_step", start_step)


@pytest.fixture
def at_step(monkeypatch):
    """Replaces the loss of a step by a function of the trainer and the loss."""

    def install(function, number):
        original, taken = Trainer.start_step, []

        def start_step(self, domain, batch):
            taken.append(domain)
            loss = original(self, domain, batch)
            return function(self, loss) if len(taken) == number else loss

        monkeypatch.setattr(Trainer, "start_step", start_step)
        return taken

    return install


def not_a_number(trainer, loss):
    return loss * np.nan


def values_of_run(run):
    trainer = run._trainer
    variables = [*trainer.network.variables_by_path().values()]
    variables += trainer.variables_by_path().values()
    return [np.asarray(variable) for variable in variables]


def checkpoints_of(folder):
    return sorted(path.stem for path in (folder / "checkpoints").glob("*.index"))


def test_same_bits_and_rows(train, tmp_path, read_rows, monkeypatch):
    later = train(tmp_path / "later", **SETTINGS)
    monkeypatch.setattr(loop, "EpochSteps", functools.partial(EpochSteps, max_unread=0))
    at_once = train(tmp_path / "at_once", **SETTINGS)
    toy.assert_identical(values_of_run(later), values_of_run(at_once))
    assert read_rows(tmp_path / "later") == read_rows(tmp_path / "at_once")


def test_number_of_unread_losses(train, tmp_path, monkeypatch):
    counts, original = [], EpochSteps._read_losses

    def read(self, *arguments):
        counts.append(len(self._unread))
        original(self, *arguments)

    monkeypatch.setattr(EpochSteps, "_read_losses", read)
    train(tmp_path, **{**SETTINGS, "steps_per_epoch": 8, "max_epochs": 1})
    # The losses of the two compiled steps are read at once; later, one is read when
    # there is one more than allowed; and at the end, all the rest.
    assert counts == [1, 1, 1, 2, 3, 4, 4, 4, 3]


def test_nan_stops_the_run_and_names_its_step(train, tmp_path, at_step):
    taken = at_step(not_a_number, 8)
    with pytest.raises(StoppedError) as caught:
        train(tmp_path, **SETTINGS)
    message = str(caught.value)
    assert message.startswith(
        "step 8: expected a finite loss and gradient. Received: nan in domain "
        f"{toy.TWO.name}, cases two_"
    )
    assert message.endswith(f"the last good checkpoint in {tmp_path} is kept")
    assert checkpoints_of(tmp_path) == ["step-5"]
    assert len(taken) == 10


@pytest.mark.parametrize("max_unread", [0, 2])
def test_memory_that_does_not_suffice(
    train, tmp_path, at_step, monkeypatch, max_unread
):
    class Exhausted:
        """A loss whose computation has failed."""

        def __float__(self):
            raise tf.errors.ResourceExhaustedError(None, None, "Out of memory")

    def exhaust(trainer, loss):
        return Exhausted() if max_unread else float(Exhausted())

    make = functools.partial(EpochSteps, max_unread=max_unread)
    monkeypatch.setattr(loop, "EpochSteps", make)
    at_step(exhaust, 8)
    with pytest.raises(StoppedError) as caught:
        train(tmp_path, **SETTINGS)
    message = str(caught.value)
    assert message.startswith(
        f"step 8: expected enough memory for a step of {toy.TWO.name}; the last good "
        f"checkpoint in {tmp_path} is kept. Received: Out of memory. Set `gradient_"
    )
    words = "with a smaller `batch_size`, smaller patches or half `precision`"
    assert message.endswith(words)
    assert checkpoints_of(tmp_path) == ["step-5"]


@pytest.mark.parametrize("number", [4, 5])
def test_nan_in_the_last_steps_of_an_epoch_is_not_saved(
    train, tmp_path, at_step, number
):
    at_step(not_a_number, number)
    with pytest.raises(StoppedError, match=f"step {number}: expected a finite loss"):
        train(tmp_path, **SETTINGS)
    assert checkpoints_of(tmp_path) == []


def stop_after(trainer, loss, factor=1.0):
    os.kill(os.getpid(), signal.SIGTERM)
    return loss * factor


def test_a_signal_saves_the_completed_steps(make_config, tmp_path, at_step, read_rows):
    uninterrupted = runs.train(make_config(tmp_path / "uninterrupted", **SETTINGS))
    config = make_config(tmp_path / "parts", **SETTINGS)
    at_step(stop_after, 4)
    with pytest.raises(StoppedEarlyError, match=r"step 4 .* is saved in "):
        runs.train(config, stop=StopRequests(signals=DeferredSignals()))
    assert checkpoints_of(tmp_path / "parts") == ["step-4"]
    parts = runs.train(config)
    toy.assert_identical(values_of_run(parts), values_of_run(uninterrupted))
    assert read_rows(tmp_path / "parts") == read_rows(tmp_path / "uninterrupted")


def test_a_signal_saves_nothing_after_nan(make_config, tmp_path, at_step):
    at_step(functools.partial(stop_after, factor=np.nan), 4)
    with pytest.raises(StoppedError, match="step 4: expected a finite loss"):
        runs.train(
            make_config(tmp_path, **SETTINGS),
            stop=StopRequests(signals=DeferredSignals()),
        )
    assert checkpoints_of(tmp_path) == []


def test_nan_is_reported_before_errors_of_a_later_batch(
    train, tmp_path, at_step, monkeypatch
):
    taken = at_step(not_a_number, 4)
    original = batches.TrainingBatches.read

    def read(self):
        if len(taken) == 5:
            raise InputError("a shard", expected="records", received="none")
        return original(self)

    monkeypatch.setattr(batches.TrainingBatches, "read", read)
    with pytest.raises(StoppedError, match="step 4: expected a finite loss"):
        train(tmp_path, **SETTINGS)


def test_skipped_steps_belong_to_their_epoch(train, tmp_path, at_step, read_rows):
    def skip(trainer, loss):
        trainer.loss_scale.skipped_steps.assign_add(1)
        return loss

    at_step(skip, 4)
    train(tmp_path, precision="mixed_float16", **SETTINGS)
    assert [row["steps_left_out"] for row in read_rows(tmp_path)] == ["1", "0"]


@pytest.mark.parametrize(("num_gpus", "expected"), [(0, 0), (1, 2), (4, 2)])
def test_default(simulate_gpus, num_gpus, expected):
    simulate_gpus(num_gpus)
    steps = EpochSteps(
        None,
        toy.PLAN,
        RunConfig(model_dir="unset"),
        progress=silent,
        check_stop=None,
        describe_checkpoint=None,
    )
    assert steps._max_unread == expected


def test_batches_are_copied_to_the_device(monkeypatch):
    """Only strings cannot be copied to it."""
    batch = {**toy.draw_batch(toy.ONE), "case": tf.constant(["one_0", "one_1"])}
    monkeypatch.setattr(batches, "training_dataset", lambda *args, **kwargs: [batch])
    devices, original = [], tf.device

    def device(name):
        devices.append(name)
        return original(name)

    monkeypatch.setattr(batches.tf, "device", device)

    def read(device):
        shards = type("Shards", (), {"trained": (), "manifests": ()})()
        made = batches.TrainingBatches(
            toy.PLAN,
            shards,
            None,
            tf.distribute.get_strategy(),
            first_step=0,
            device=device,
        )
        return made.read()

    assert read(None) is batch
    assert devices == []
    found = read("CPU:0")
    assert devices == ["CPU:0"]
    assert found["case"] is batch["case"]
    for name in ("image", "labels"):
        assert found[name] is not batch[name]
        np.testing.assert_array_equal(found[name], batch[name])
