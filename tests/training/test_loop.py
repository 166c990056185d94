import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import toy
from recorded_progress import RecordedProgress

from u2net_tf import locks
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.inference.predictor import Predictor
from u2net_tf.input.pipeline import training_dataset
from u2net_tf.models.best import DICE, LOSS
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.progress import silent
from u2net_tf.shards import records
from u2net_tf.shards.manifest import load_manifest
from u2net_tf.training import batches, runs, schedule
from u2net_tf.training.monitor import Monitor
from u2net_tf.training.step import Trainer

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("toy_network", "shared_input", "eager_steps")


def values_of_run(run):
    """Returns all values that a run resumes from."""
    trainer = run._trainer
    variables = list(trainer.network.variables)
    for optimizer in trainer.optimizers:
        variables += optimizer.variables
    return toy.values_of(variables)


def checkpoint_names(model_dir):
    names = (model_dir / "checkpoints").glob("*.index")
    return sorted(path.stem for path in names)


@pytest.fixture
def own_data(tiny_data, tmp_path):
    """A copy of the shards that a test may damage."""
    return pathlib.Path(shutil.copytree(tiny_data.data_dir, tmp_path / "own_data"))


class TestTraining:
    @pytest.mark.usefixtures("traced_steps")
    def test_learns_an_easy_problem(self, train, tmp_path, read_rows):
        train(tmp_path, steps_per_epoch=20, max_epochs=4, validate_every_epochs=4)
        rows = read_rows(tmp_path)
        for column in ("loss", "loss/Task91_One", "loss/Task92_Two"):
            losses = [float(row[column]) for row in rows]
            assert losses[-1] < 0.7 * losses[0]
        assert float(rows[-1]["dice/Task91_One/organ"]) > 0.7

    def test_writes_a_row_per_epoch(self, train, tmp_path, read_rows):
        run = train(tmp_path, steps_per_epoch=3, max_epochs=2, loss_ema_decay=0.75)
        rows = read_rows(tmp_path)
        assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
        assert (run.step, run.state.epochs) == (6, 2)
        # Steps 0 and 2 are of the first domain and step 1 is of the second.
        first, second, joint = (
            float(rows[0][name])
            for name in ("loss/Task91_One", "loss/Task92_Two", "loss")
        )
        assert joint == pytest.approx((2 * first + second) / 3, rel=1e-5)
        averages = [float(row["loss_moving_average"]) for row in rows]
        losses = [float(row["loss"]) for row in rows]
        assert averages[0] == pytest.approx(losses[0])
        expected = 0.75 * losses[0] + 0.25 * losses[1]
        assert averages[1] == pytest.approx(expected, rel=1e-5)

    def test_a_domain_without_a_step_has_no_loss(self, train, tmp_path, read_rows):
        train(tmp_path, steps_per_epoch=1)
        assert read_rows(tmp_path)[0]["loss/Task92_Two"] == ""

    def test_every_epoch_has_a_checkpoint(self, train, tmp_path):
        train(tmp_path, steps_per_epoch=2, max_epochs=3, keep=2)
        assert checkpoint_names(tmp_path) == ["step-4", "step-6"]


class TestBest:
    def spy(self, monkeypatch):
        """Returns a list that collects the candidates passed to `save`, in order."""
        candidates, original = [], Checkpoints.save

        def save(self, state, candidate=None):
            candidates.append(candidate)
            return original(self, state, candidate)

        monkeypatch.setattr(Checkpoints, "save", save)
        return candidates

    def test_has_the_highest_validation_dice(self, train, tmp_path, monkeypatch):
        # The first domain has validation cases; the second has only test cases, which
        # must not affect the choice.
        scores = iter([[0.9], [0.3, 0.6], [0.2], [0.1, 0.3]])
        monkeypatch.setattr(
            "u2net_tf.training.validation.dice", lambda *args, **kwargs: next(scores)
        )
        candidates = self.spy(monkeypatch)
        train(
            tmp_path, steps_per_epoch=1, max_epochs=5, validate_every_epochs=2, keep=1
        )
        assert candidates[::2] == [None] * 3
        assert [(o.step, o.measure) for o in candidates[1::2]] == [(2, DICE), (4, DICE)]
        assert [o.value for o in candidates[1::2]] == pytest.approx([0.9, 0.2])
        assert checkpoint_names(tmp_path) == ["step-2", "step-5"]

    def test_without_validation_has_the_lowest_average_loss(
        self, train, tmp_path, monkeypatch, read_rows
    ):
        candidates = self.spy(monkeypatch)
        train(tmp_path, steps_per_epoch=2, max_epochs=3)
        averages = [float(row["loss_moving_average"]) for row in read_rows(tmp_path)]
        assert [o.value for o in candidates] == pytest.approx(averages, rel=1e-5)
        assert [(o.step, o.measure) for o in candidates] == [
            (s, LOSS) for s in (2, 4, 6)
        ]

    def test_is_kept_if_the_loss_rises(self, train, tmp_path, monkeypatch):
        averages = iter([3.0, 1.0, 2.0, 2.5])
        original = schedule.advance

        def advance(rule, state, loss):
            state = original(rule, state, loss)
            return dataclasses.replace(state, moving_average=next(averages))

        monkeypatch.setattr(schedule, "advance", advance)
        train(tmp_path, steps_per_epoch=1, max_epochs=4, keep=1)
        assert checkpoint_names(tmp_path) == ["step-2", "step-4"]


class TestSkippedSteps:
    """Counting them in float16; `test_precision.py` tests when a step is skipped."""

    @pytest.fixture
    def overflow(self, monkeypatch):
        """Counts the steps with the given numbers as skipped."""

        def pretend(*steps):
            original, done = Trainer.step, []

            def step(self, domain, batch):
                done.append(domain)
                if len(done) in steps:
                    self.loss_scale.skipped_steps.assign_add(1)
                return original(self, domain, batch)

            monkeypatch.setattr(Trainer, "step", step)

        return pretend

    def test_are_logged_per_epoch(self, train, tmp_path, overflow, read_rows):
        overflow(1, 2, 6)
        half = {"precision": "mixed_float16", "steps_per_epoch": 3}
        train(tmp_path, max_epochs=2, **half)
        train(tmp_path, max_epochs=3, **half)
        rows = read_rows(tmp_path)
        assert [row["steps_left_out"] for row in rows] == ["2", "1", "0"]

    def test_are_not_logged_in_other_precisions(self, train, tmp_path, read_rows):
        train(tmp_path, steps_per_epoch=1)
        assert read_rows(tmp_path)[0]["steps_left_out"] == ""


class TestProgress:
    def test_counts_steps_and_windows_of_validation(self, train, tmp_path):
        progress = RecordedProgress()
        settings = {"steps_per_epoch": 3, "max_epochs": 2, "validate_every_epochs": 2}
        train(tmp_path, progress=progress, **settings)
        first, second, *windows = progress.counts
        assert first == ("epoch 1 of 2", "step", 3)
        assert second == ("epoch 2 of 2", "step", 3)
        assert {name for name, *_ in windows} == {"windows"}
        assert [len(bar.values) for bar in progress.bars[:2]] == [3, 3]
        assert float(progress.bars[0].values[0]["loss"]) > 0
        assert [bar.values[-1]["step"] for bar in progress.bars[:2]] == [3, 6]
        # The first step of each domain is compiled; its duration is not typical.
        assert [bar.unpaused for bar in progress.bars[:2]] == [[0, 1], []]

    def test_nothing_is_printed(self, train, tmp_path, capsys):
        train(tmp_path, max_epochs=1, validate_every_epochs=1)
        out, err = capsys.readouterr()
        assert out == ""
        # Log messages in absl's format are allowed.
        assert not [
            line for line in err.splitlines() if not re.match("[IW]\\d{4} ", line)
        ]


class TestEnd:
    def test_max_epochs(self, train, tmp_path, read_rows):
        run = train(tmp_path, steps_per_epoch=1, max_epochs=2)
        assert len(read_rows(tmp_path)) == 2
        message = runs.summary(run)
        assert message.startswith(
            f"{tmp_path}: 2 steps in 2 epochs (ended by `max_epochs"
        )
        assert run.minutes > 0
        assert f"; {run.minutes:.1f} min in this run)" in message
        for path in ("checkpoints", "training.csv", "tensorboard"):
            assert str(tmp_path / path) in message

    def test_end_of_the_schedule(self, train, tmp_path, read_rows):
        # No decrease is enough, so every check but the first reduces the rate.
        run = train(
            tmp_path,
            steps_per_epoch=1,
            max_epochs=0,
            learning_rate=0.1,
            patience_epochs=2,
            plateau_min_delta=1e9,
            plateau_factor=0.1,
            min_learning_rate=0.005,
        )
        rates = [float(row["learning_rate"]) for row in read_rows(tmp_path)]
        assert rates == pytest.approx([0.1] * 4 + [0.01] * 2)
        assert "6 steps in 6 epochs (ended by `min_learning_rate`" in runs.summary(run)

    def test_a_polynomial_learning_rate(self, train, tmp_path, read_rows):
        rule = {
            "steps_per_epoch": 1,
            "learning_rate": 0.1,
            "learning_rate_schedule": "polynomial",
            "polynomial_power": 2.0,
        }
        run = train(tmp_path / "a", max_epochs=2, **rule)
        assert "2 steps in 2 epochs (ended by `max_epochs`" in runs.summary(run)
        rates = [float(row["learning_rate"]) for row in read_rows(tmp_path / "a")]
        assert rates == pytest.approx([0.1, 0.025])
        # A run that is extended continues on the longer polynomial.
        run = train(tmp_path / "a", max_epochs=4, **rule)
        rates = [float(row["learning_rate"]) for row in read_rows(tmp_path / "a")]
        assert rates == pytest.approx([0.1, 0.025, 0.025, 0.00625])
        assert [float(o.learning_rate) for o in run._trainer.optimizers] == [0.0] * 3

    def test_learning_rate_of_the_schedule_reaches_the_optimizers(
        self, train, tmp_path
    ):
        changes = {
            "patience_epochs": 1,
            "plateau_min_delta": 1e9,
            "plateau_factor": 0.25,
        }
        run = train(tmp_path, steps_per_epoch=1, max_epochs=2, **changes)
        rates = [float(o.learning_rate) for o in run._trainer.optimizers]
        assert rates == pytest.approx([0.005] * 3)

    def test_rerun_after_the_end_changes_nothing(self, train, tmp_path, read_rows):
        first = train(tmp_path, max_epochs=2)
        rows = read_rows(tmp_path)
        again = train(tmp_path, max_epochs=2)
        toy.assert_identical(values_of_run(again), values_of_run(first))
        assert read_rows(tmp_path) == rows
        assert checkpoint_names(tmp_path) == ["step-4", "step-8"]


class TestValidation:
    def test_every_few_epochs(self, train, tmp_path, read_rows):
        train(tmp_path, steps_per_epoch=2, max_epochs=4, validate_every_epochs=2)
        columns = [name for name in read_rows(tmp_path)[0] if name.startswith("dice/")]
        assert columns == [
            "dice/Task91_One/organ",
            "dice/Task92_Two/rim",
            "dice/Task92_Two/core",
        ]
        for row in read_rows(tmp_path):
            has_dice = [row[column] != "" for column in columns]
            assert has_dice == [row["epoch"] in ("2", "4")] * 3

    @pytest.mark.parametrize(("eval_cases", "seen"), [(1, [15, 14]), (5, [15, 16, 14])])
    def test_scores_eval_cases_of_the_monitored_split(
        self, train, tmp_path, monkeypatch, eval_cases, seen
    ):
        # A case is recognized by its width, 12 + its number. The first domain has two
        # validation cases; the second has none, so its test case is monitored.
        widths = []
        original = Predictor.classes

        def spy(self, image, domain):
            widths.append(image.shape[2])
            return original(self, image, domain)

        monkeypatch.setattr(Predictor, "classes", spy)
        train(
            tmp_path, steps_per_epoch=1, validate_every_epochs=1, eval_cases=eval_cases
        )
        assert sorted(widths) == sorted(seen)

    def test_is_the_mean_over_the_cases_with_a_dice(
        self, train, tmp_path, monkeypatch, read_rows
    ):
        scores = iter([[0.5], [np.nan], [np.nan, 1.0]])
        monkeypatch.setattr(
            "u2net_tf.training.validation.dice", lambda *args, **kwargs: next(scores)
        )
        train(tmp_path, steps_per_epoch=1, validate_every_epochs=1, eval_cases=5)
        (row,) = read_rows(tmp_path)
        assert [v for k, v in row.items() if k.startswith("dice/")] == ["0.5", "", "1"]

    def test_a_domain_without_monitored_cases_has_no_dice(
        self, train, own_data, tmp_path, read_rows
    ):
        drop_test_cases(own_data, toy.TWO.name)
        train(tmp_path, data_dir=own_data, steps_per_epoch=1, validate_every_epochs=1)
        (row,) = read_rows(tmp_path)
        assert row["dice/Task92_Two/core"] == ""
        assert row["dice/Task91_One/organ"] != ""


def drop_test_cases(data_dir, name):
    """Rewrites plan and manifest as if the domain had no test cases."""
    from u2net_tf.plan.plan_file import load_plan
    from u2net_tf.shards import manifest as manifests

    plan = load_plan(data_dir / "plan.json")
    changed = dataclasses.replace(plan.domains[plan.index(name)], test=())
    domains = tuple(changed if d.name == name else d for d in plan.domains)
    plan = dataclasses.replace(plan, domains=domains)
    (data_dir / "plan.json").write_text(plan_to_json(plan))
    manifest = load_manifest(data_dir, name)
    kept = tuple(entry for entry in manifest.cases if entry.group != "test")
    manifest = dataclasses.replace(manifest, cases=kept, plan_hash=plan_hash(changed))
    path = manifests.manifest_path(data_dir, name)
    path.write_text(manifests.to_json(manifest))


# With two domains, the first epoch ends in the middle of a round.
RESUMED = {"steps_per_epoch": 3, "validate_every_epochs": 2}


@pytest.fixture(scope="module")
def uninterrupted(train, made_once, tmp_path_factory, read_rows):
    """Final values and rows of a run of four epochs that nothing interrupts."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "build_network", toy.build_toy_network)
        patch.setattr(batches, "training_dataset", made_once)
        run = train(folder, max_epochs=4, **RESUMED)
    return values_of_run(run), read_rows(folder)


class TestResume:
    def check_equal(self, run, folder, uninterrupted, read_rows):
        toy.assert_identical(values_of_run(run), uninterrupted[0])
        assert read_rows(folder) == uninterrupted[1]

    @pytest.mark.usefixtures("traced_steps")
    def test_is_bit_identical(self, train, tmp_path, read_rows, monkeypatch):
        """With traced steps, and the real pipeline of a resumed run.

        Only one domain is trained; `test_pipeline.py` resumes several.
        """
        monkeypatch.setattr(batches, "training_dataset", training_dataset)
        folder = tmp_path / "parts"
        settings = {"steps_per_epoch": 3, "domains": (toy.TWO.name,)}
        for epochs in (1, 2):
            run = train(folder, max_epochs=epochs, **settings)
        uninterrupted = train(tmp_path / "uninterrupted", max_epochs=2, **settings)
        toy.assert_identical(values_of_run(run), values_of_run(uninterrupted))
        assert read_rows(folder) == read_rows(tmp_path / "uninterrupted")

    def test_killed_between_checkpoint_and_row(
        self, train, tmp_path, uninterrupted, read_rows, monkeypatch
    ):
        folder = tmp_path / "parts"

        def die(self, logs):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Monitor, "write", die)
            with pytest.raises(KeyboardInterrupt):
                train(folder, max_epochs=4, **RESUMED)
        assert checkpoint_names(folder) == ["step-3"]
        assert read_rows(folder) == []
        run = train(folder, max_epochs=4, **RESUMED)
        self.check_equal(run, folder, uninterrupted, read_rows)

    def test_killed_in_the_middle_of_an_epoch(
        self, train, tmp_path, uninterrupted, read_rows, monkeypatch
    ):
        folder = tmp_path / "parts"
        original, steps = Trainer.step, []

        def die_at_the_fifth(self, domain, batch):
            steps.append(domain)
            if len(steps) == 5:
                raise KeyboardInterrupt
            return original(self, domain, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", die_at_the_fifth)
            with pytest.raises(KeyboardInterrupt):
                train(folder, max_epochs=4, **RESUMED)
        assert steps == [0, 1, 0, 1, 0]
        run = train(folder, max_epochs=4, **RESUMED)
        self.check_equal(run, folder, uninterrupted, read_rows)

    @pytest.mark.slow
    def test_with_a_damaged_newest_checkpoint(
        self, train, tmp_path, uninterrupted, read_rows
    ):
        folder = tmp_path / "parts"
        train(folder, max_epochs=2, **RESUMED)
        path = folder / "checkpoints" / "step-6.data-00000-of-00001"
        path.write_bytes(path.read_bytes()[:100])
        run = train(folder, max_epochs=4, **RESUMED)
        self.check_equal(run, folder, uninterrupted, read_rows)

    def test_resumes_with_the_learning_rate_of_the_schedule(
        self, train, tmp_path, read_rows
    ):
        rule = {"patience_epochs": 1, "plateau_min_delta": 1e9, "plateau_factor": 0.5}
        for epochs in (2, 4):
            parts = train(tmp_path / "a", steps_per_epoch=1, max_epochs=epochs, **rule)
        rates = [float(row["learning_rate"]) for row in read_rows(tmp_path / "a")]
        assert rates == pytest.approx([0.02, 0.02, 0.01, 0.005])
        # The rate was reduced right before the interruption, so the first step after
        # it must already use the new one.
        uninterrupted = train(tmp_path / "b", steps_per_epoch=1, max_epochs=4, **rule)
        toy.assert_identical(values_of_run(parts), values_of_run(uninterrupted))

    def test_a_lower_minimum_extends_a_finished_run(self, train, tmp_path, read_rows):
        rule = {"patience_epochs": 1, "plateau_min_delta": 1e9, "max_epochs": 0}
        train(tmp_path, steps_per_epoch=1, min_learning_rate=0.01, **rule)
        assert len(read_rows(tmp_path)) == 2
        train(tmp_path, steps_per_epoch=1, min_learning_rate=0.003, **rule)
        assert len(read_rows(tmp_path)) == 3

    def test_with_other_domains_is_an_error(self, train, tmp_path):
        train(tmp_path, steps_per_epoch=1)
        with pytest.raises(InputError, match="expected domains"):
            train(tmp_path, domains=(toy.ONE.name,))


class TestNotFinite:
    def make_infinite(self, data_dir, case):
        """Replaces all voxels of a training case with infinity."""
        folder = data_dir / toy.ONE.name
        for name in load_manifest(data_dir, toy.ONE.name).shards(toy.ONE.train):
            path = str(folder / name)
            kept = [records.decode(s.numpy()) for s in tf.data.TFRecordDataset(path)]
            with tf.io.TFRecordWriter(path) as writer:
                for record in kept:
                    if record.case == case:
                        record.image[...] = np.inf
                    image = record.image.astype(np.float16)
                    record = dataclasses.replace(record, image=image)
                    writer.write(records.encode(record))

    def test_non_finite_voxels_stop_the_run_and_name_the_case(
        self, train, tmp_path, own_data, tiny_data, read_rows
    ):
        folder = tmp_path / "model"
        train(folder, data_dir=own_data)
        self.make_infinite(own_data, "one_1")
        with pytest.raises(InputError) as caught:
            train(folder, data_dir=own_data, max_epochs=5)
        message = str(caught.value)
        (name,) = load_manifest(own_data, toy.ONE.name).shards(toy.ONE.train)
        assert message.startswith(
            f"{own_data / toy.ONE.name / name}: one_1: expected finite voxels. "
            "Received: NaN or infinity. "
        )
        # The last good checkpoint equals that of a run on good data and can be resumed.
        run = train(folder, max_epochs=3)
        uninterrupted = train(tmp_path / "uninterrupted", max_epochs=3)
        toy.assert_identical(values_of_run(run), values_of_run(uninterrupted))

    def test_non_finite_variables_are_never_saved(self, train, tmp_path):
        # The loss of the only step is finite, but the variables after it are not.
        words = (
            "step 1: expected finite variables. Received: NaN or infinity in the layer "
            "stem_0;"
        )
        with pytest.raises(StoppedError, match=words):
            train(tmp_path, steps_per_epoch=1, learning_rate=1e39)
        assert checkpoint_names(tmp_path) == []

    def test_a_huge_learning_rate(self, train, tmp_path):
        with pytest.raises(StoppedError) as caught:
            train(tmp_path, learning_rate=1e30)
        message = str(caught.value)
        assert "a finite loss and gradient. Received: nan in domain Task9" in message
        assert message.endswith(f"; there is no checkpoint in {tmp_path} yet")


class TestShards:
    @pytest.mark.parametrize("split", ["train", "validation"])
    @pytest.mark.parametrize("size", [-7, 0])
    def test_a_truncated_one_is_reported(self, train, tmp_path, own_data, split, size):
        (name,) = load_manifest(own_data, toy.ONE.name).shards(toy.ONE.cases(split))
        path = own_data / toy.ONE.name / name
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputError) as caught:
            train(
                tmp_path / "model",
                data_dir=own_data,
                validate_every_epochs=1,
                eval_cases=5,
            )
        message = str(caught.value)
        assert message.startswith(f"{path}: expected ")
        assert "truncated in the record of one_" in message
        # Not even the settings were saved.
        assert not (tmp_path / "model").exists()

    def test_unread_ones_may_be_damaged(self, train, tmp_path, own_data):
        (name,) = load_manifest(own_data, toy.ONE.name).shards(toy.ONE.validation)
        (own_data / toy.ONE.name / name).write_bytes(b"")
        train(tmp_path / "model", data_dir=own_data, steps_per_epoch=1)

    def test_a_missing_one_is_reported(self, train, tmp_path, own_data):
        (name,) = load_manifest(own_data, toy.TWO.name).shards(toy.TWO.train)
        (own_data / toy.TWO.name / name).unlink()
        with pytest.raises(InputError, match=name):
            train(tmp_path / "model", data_dir=own_data)
        assert not (tmp_path / "model").exists()

    def test_replaced_ones_end_the_run(self, train, tmp_path, own_data):
        """What was learned from the new shards is not saved."""
        manifest = load_manifest(own_data, toy.TWO.name)
        (name,) = manifest.shards(toy.TWO.cases(toy.TWO.monitored_split))
        path = own_data / toy.TWO.name / name

        def replace(iterable=None, desc=None, **options):
            if desc == "epoch 3 of 3":
                (entry,) = (e for e in manifest.cases if e.shard == name)
                record = records.decode(read_records(path)[0])
                image = (record.image + 1).astype(manifest.image_dtype)
                with tf.io.TFRecordWriter(str(path)) as writer:
                    record = dataclasses.replace(record, image=image)
                    writer.write(records.encode(record))
                assert path.stat().st_size == entry.num_bytes + 16
                os.utime(path, ns=(0, 0))
            return silent(iterable, desc, **options)

        with pytest.raises(InputError) as caught:
            train(
                tmp_path / "model",
                data_dir=own_data,
                max_epochs=3,
                # No validation after the last epoch would read the records again.
                validate_every_epochs=2,
                progress=replace,
            )
        assert str(caught.value).startswith(f"{path}: two_2: expected checksum ")
        assert checkpoint_names(tmp_path / "model")[-1] == "step-8"

    def test_invalid_ones_for_validation_are_reported(self, train, tmp_path, own_data):
        (name,) = load_manifest(own_data, toy.ONE.name).shards(toy.ONE.validation)
        path = own_data / toy.ONE.name / name
        first, second = map(records.decode, read_records(path))
        with tf.io.TFRecordWriter(str(path)) as writer:
            image = np.full_like(first.image, np.nan, np.float16)
            writer.write(records.encode(dataclasses.replace(first, image=image)))
            image = second.image.astype(np.float16)
            writer.write(records.encode(dataclasses.replace(second, image=image)))
        words = f"{path}: {first.case}: expected finite voxels"
        with pytest.raises(InputError, match=words):
            train(tmp_path / "model", data_dir=own_data, validate_every_epochs=1)

    def test_are_locked_while_they_are_read(self, train, tmp_path, own_data):
        refused = []

        def convert(iterable=None, desc=None, **options):
            for domain in (toy.ONE, toy.TWO):
                try:
                    with locks.locked(own_data / domain.name):
                        pass
                except InputError as error:
                    refused.append(error.where)
            return silent(iterable, desc, **options)

        settings = {"data_dir": own_data, "steps_per_epoch": 1}
        train(tmp_path / "a", domains=(toy.TWO.name,), progress=convert, **settings)
        assert refused == [str(own_data / toy.TWO.name)]
        with locks.locked(own_data / toy.ONE.name):
            with pytest.raises(
                InputError, match="expected a folder that no run writes"
            ):
                train(tmp_path / "b", **settings)
            train(tmp_path / "c", domains=(toy.TWO.name,), **settings)
        assert not (tmp_path / "b").exists()


def read_records(path):
    return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


@pytest.mark.slow
def test_killed_and_restarted_is_bit_identical(
    train, tiny_data, tmp_path, monkeypatch, read_rows
):
    """Kills the real command, which trains the real network, with SIGKILL."""
    monkeypatch.undo()
    # Traced like those of the command, since eager steps differ in the last bits.
    monkeypatch.setattr(Trainer, "step", Trainer.step.__wrapped__)
    folder = tmp_path / "killed"
    settings = {"steps_per_epoch": 3}
    flags = {
        **settings,
        # So many that it cannot end before it is killed.
        "max_epochs": 100_000,
        "pools": "1,0,1",
        "base_channels": 2,
        "validate_every_epochs": 0,
    }
    flags |= {"data_dir": tiny_data.data_dir, "model_dir": folder}
    flags |= {"domains": toy.TWO.name, "learning_rate": 0.02}
    with subprocess.Popen(
        [sys.executable, "-m", "u2net_tf.train"]
        + [f"--{name}={value}" for name, value in flags.items()],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and len(list_rows(folder)) < 2:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    settings["max_epochs"] = len(list_rows(folder)) + 2
    settings |= {"base_channels": 2, "pools": (1, 0, 1), "domains": (toy.TWO.name,)}
    resumed = train(folder, **settings)
    uninterrupted = train(tmp_path / "uninterrupted", **settings)
    toy.assert_identical(values_of_run(resumed), values_of_run(uninterrupted))
    assert read_rows(folder) == read_rows(tmp_path / "uninterrupted")


def list_rows(folder):
    path = folder / "training.csv"
    return path.read_text().splitlines()[1:] if path.is_file() else []
