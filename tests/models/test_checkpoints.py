import contextlib
import dataclasses
import errno
import json
import math
import os
import pathlib
import re
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
import toy
from power_cuts import PowerCuts

from u2net_tf.errors import InputError
from u2net_tf.models import checkpoint_paths, checkpoint_reading, loading
from u2net_tf.models.best import DICE, LOSS, Best
from u2net_tf.models.build import build_network
from u2net_tf.models.checkpoint_index import DamagedCheckpointError
from u2net_tf.models.checkpoint_reading import CheckpointReader
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.loading import load_network
from u2net_tf.models.run_state import RunState, ScheduleState
from u2net_tf.models.spec import ModelSpec, spec_to_json
from u2net_tf.plan.domains import Plan


@pytest.fixture(autouse=True)
def toy_network(monkeypatch):
    monkeypatch.setattr(loading, "build_network", toy.build_toy_network)


def values_of_run(trainer):
    """All values that training resumes from."""
    variables = list(trainer.network.variables)
    for optimizer in trainer.optimizers:
        variables += optimizer.variables
    return toy.values_of(variables)


def change(trainer):
    """Replaces training, which would trace every step."""
    for optimizer in trainer.optimizers:
        for variable in optimizer.variables:
            variable.assign(variable + tf.cast(1, variable.dtype))
    for variable in trainer.network.variables:
        variable.assign(variable + 1)


def open_run(folder, seed=0, keep=3, plan=toy.PLAN, **changes):
    spec, trainer = toy.make_trainer(seed, plan)
    spec = dataclasses.replace(spec, **changes)
    training = trainer.variables_by_path()
    saved = Checkpoints(folder, spec, trainer.network, training, keep=keep)
    return saved, trainer


def train(trainer, num_steps):
    for step in range(num_steps):
        domain = step % 2
        trainer.step(domain, toy.draw_batch(toy.PLAN.domains[domain], seed=step))


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    saved, trainer = open_run(folder)
    values = {}
    for step in (1, 2, 3):
        train(trainer, 2)
        saved.save(RunState(step))
        values[step] = values_of_run(trainer)
    return folder, values


@pytest.fixture
def run_of_three(one_run, tmp_path):
    """A folder with checkpoints after steps 1, 2 and 3, and the values of each."""
    folder, values = one_run
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path, values


def names(folder):
    return sorted(p.stem for p in (folder / "checkpoints").glob("*.index"))


every_truncation = pytest.mark.parametrize(
    ("suffix", "fraction"),
    [
        (".index", 0),
        (".index", 0.5),
        (".data-00000-of-00001", 0.99),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                (".index", 0.99),
                (".data-00000-of-00001", 0),
                (".data-00000-of-00001", 0.5),
            )
        ),
    ],
)


def truncate(folder, step, suffix=".data-00000-of-00001", fraction=0.5):
    path = folder / "checkpoints" / f"step-{step}{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


def flip_bit(folder, step, index=100):
    path = folder / "checkpoints" / f"step-{step}.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[index] ^= 1
    path.write_bytes(content)


class TestRoundTrip:
    def test_restores_every_bit_of_network_and_optimizers(self, run_of_three):
        folder, values = run_of_three
        saved, trainer = open_run(folder, seed=1)
        assert saved.restore().step == 3
        toy.assert_identical(values_of_run(trainer), values[3])
        assert [int(o.iterations) for o in trainer.optimizers] == [6, 3, 3]

    def test_restores_the_state(self, tmp_path):
        logs = {"step": 3, "loss": 0.1 + 0.2, "loss/a": 1e-300, "loss/é": 2.0}
        schedule = ScheduleState(1 / 3, epochs=2, moving_average=0.3, window=(0.1, 0.2))
        state = RunState(3, schedule, logs)
        open_run(tmp_path)[0].save(state)
        assert open_run(tmp_path)[0].restore() == state

    def test_nan_is_restored(self, tmp_path):
        open_run(tmp_path)[0].save(RunState(3, logs={"step": 3, "loss/a": math.nan}))
        assert math.isnan(open_run(tmp_path)[0].restore().logs["loss/a"])

    def test_names_in_the_file_are_those_of_the_project(self, tmp_path):
        path = open_run(tmp_path)[0].save(RunState(1))
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        network = [f"{part}_{i}" for part in ("stem", "head") for i in range(2)]
        network.append("trunk")
        expected = {"spec", "state", *(f"network/{name}" for name in network)}
        for part in ("shared", "domain_0", "domain_1"):
            number = part.removeprefix("domain_")
            own = (
                ["trunk"] if part == "shared" else [f"stem_{number}", f"head_{number}"]
            )
            slots = [f"{slot}/{v}" for slot in ("momentum", "velocity") for v in own]
            names = ("iterations", "learning_rate", *slots)
            expected |= {f"optimizer/{part}/{name}" for name in names}
        assert set(shapes) == expected
        assert shapes["network/stem_1"] == [2, 4]

    def test_the_checkpoint_is_opened_once(self, run_of_three, monkeypatch):
        folder, _ = run_of_three
        opened, load = [], tf.train.load_checkpoint

        def watch(path):
            opened.append(checkpoint_paths.step_of(path))
            return load(path)

        monkeypatch.setattr(tf.train, "load_checkpoint", watch)
        open_run(folder)[0].restore()
        load_network(folder)
        assert opened == [3, 3]

    def test_an_empty_folder_restores_nothing(self, tmp_path):
        saved, trainer = open_run(tmp_path)
        before = values_of_run(trainer)
        assert saved.restore() is None
        toy.assert_identical(values_of_run(trainer), before)

    def test_save_returns_the_path(self, tmp_path):
        path = open_run(tmp_path)[0].save(RunState(7))
        assert path == str(tmp_path / "checkpoints" / "step-7")
        assert load_network(tmp_path)[2] == path

    def test_reads_checkpoints_of_earlier_versions(self, run_of_three):
        """They had a list of checkpoints, keys of TensorFlow, and no format number."""
        folder, values = run_of_three
        saved, trainer = open_run(folder)
        saved.restore()
        network = trainer.network
        network.stem_0, network.stem_1 = network.stems
        fields = json.loads(spec_to_json(toy.make_trainer()[0]))
        plan = {"format": 1, **fields.pop("plan")}
        for name in ("format", "written_by"):
            del fields[name]
        for domain in plan["domains"]:
            del domain["folds"]
        state = {"state": {"step": 4, "schedule": None, "row": None}, "run": {}}
        old = tf.train.Checkpoint(
            network=network,
            optimizers=list(trainer.optimizers),
            spec=tf.Variable(json.dumps({**fields, "plan": json.dumps(plan)})),
            state=tf.Variable(json.dumps(state)),
        )
        manager = tf.train.CheckpointManager(
            old, str(folder / "checkpoints"), max_to_keep=9, checkpoint_name="step"
        )
        manager.save(checkpoint_number=4)
        again, other = open_run(folder, seed=1)
        assert again.restore().step == 4
        toy.assert_identical(values_of_run(other), values[3])
        again.save(RunState(5))
        # The list would still name step 4 as the newest.
        assert not (folder / "checkpoints" / "checkpoint").exists()


def best(step, value, measure=DICE):
    return Best(step, measure, value)


class TestBest:
    def save(self, folder, *values, keep=1, measure=DICE):
        """Saves a run with a checkpoint for each value; None is not a candidate."""
        saved, _ = open_run(folder, keep=keep)
        for step, value in enumerate(values, start=1):
            candidate = None if value is None else best(step, value, measure)
            saved.save(RunState(step), candidate)

    @pytest.mark.parametrize(
        ("values", "left"),
        [
            ((0.5, 0.7, 0.6, 0.6), [2, 4]),
            # The first of equal ones; the best one may also be the last.
            ((0.7, 0.7, 0.6), [1, 3]),
            ((0.5, 0.6, 0.7), [3]),
            ((0.5, None, None), [1, 3]),
            ((None, None), [2]),
        ],
    )
    def test_is_kept_in_addition_to_the_last(self, tmp_path, values, left):
        self.save(tmp_path, *values)
        assert names(tmp_path) == [f"step-{step}" for step in left]

    def test_is_the_lowest_of_losses(self, tmp_path):
        self.save(tmp_path, 0.5, 0.3, 0.4, measure=LOSS)
        assert names(tmp_path) == ["step-2", "step-3"]

    def test_does_not_count_among_the_last(self, tmp_path):
        self.save(tmp_path, 0.9, 0.1, 0.1, 0.1, keep=2)
        assert names(tmp_path) == ["step-1", "step-3", "step-4"]

    def test_is_remembered_by_a_resumed_run(self, tmp_path):
        self.save(tmp_path, 0.5, 0.9, 0.6)
        saved, _ = open_run(tmp_path, keep=1)
        saved.restore()
        saved.save(RunState(4), best(4, 0.8))
        assert names(tmp_path) == ["step-2", "step-4"]
        saved.save(RunState(5), best(5, 0.95))
        assert names(tmp_path) == ["step-5"]

    def test_is_forgotten_if_its_checkpoint_is_damaged(self, tmp_path):
        self.save(tmp_path, 0.5, 0.6, 0.9, keep=3)
        truncate(tmp_path, 3)
        saved, _ = open_run(tmp_path, keep=3)
        saved.restore()
        saved.save(RunState(3), best(3, 0.55))
        assert load_network(tmp_path, checkpoint="best")[2].endswith("step-2")

    def test_is_forgotten_if_a_damaged_one_replaced_it(self, tmp_path):
        self.save(tmp_path, 0.9, 0.5, 0.5, 0.95, keep=2)
        truncate(tmp_path, 4)
        saved, _ = open_run(tmp_path, keep=2)
        saved.restore()
        saved.save(RunState(4), best(4, 0.8))
        assert load_network(tmp_path, checkpoint="best")[2].endswith("step-4")

    def test_is_forgotten_with_a_warning_if_it_is_damaged(self, tmp_path, caplog):
        self.save(tmp_path, 0.9, 0.5, 0.6)
        flip_bit(tmp_path, 1)
        saved, trainer = open_run(tmp_path, keep=1)
        assert saved.restore().step == 3
        (message,) = [r.getMessage() for r in caplog.records]
        assert (
            f"{tmp_path / 'checkpoints' / 'step-1'}: expected an undamaged" in message
        )
        assert message.endswith(
            "; it was the best one, and the next candidate replaces it"
        )
        saved.save(RunState(4), best(4, 0.7))
        assert names(tmp_path) == ["step-4"]
        change(trainer)
        saved.save(RunState(5), best(5, 0.8))
        expected = toy.values_of(trainer.network.variables)
        change(trainer)
        saved.save(RunState(6), best(6, 0.6))
        assert names(tmp_path) == ["step-5", "step-6"]
        _, network, path = load_network(tmp_path, checkpoint="best")
        assert path.endswith("step-5")
        toy.assert_identical(toy.values_of(network.variables), expected)

    @every_truncation
    def test_is_forgotten_if_it_is_truncated(self, tmp_path, caplog, suffix, fraction):
        self.save(tmp_path, 0.9, 0.5)
        truncate(tmp_path, 1, suffix, fraction)
        saved, _ = open_run(tmp_path, keep=1)
        saved.restore()
        assert "it was the best" in caplog.text
        saved.save(RunState(3), best(3, 0.6))
        assert names(tmp_path) == ["step-3"]

    def test_is_forgotten_wherever_a_bit_is_flipped(self, tmp_path):
        self.save(tmp_path, 0.9, 0.5)
        path = tmp_path / "checkpoints" / "step-1.data-00000-of-00001"
        content = path.read_bytes()
        for index in range(0, len(content), len(content) // 8):
            flip_bit(tmp_path, 1, index)
            saved, _ = open_run(tmp_path, keep=1)
            saved.restore()
            assert saved._best is None, index
            path.write_bytes(content)

    @pytest.mark.parametrize(("values", "read"), [((0.9, 0.5), [1]), ((0.5, 0.9), [])])
    def test_is_read_once_and_not_again_if_it_is_the_newest(
        self, tmp_path, monkeypatch, caplog, values, read
    ):
        self.save(tmp_path, *values, keep=2)
        seen = []
        check = checkpoint_reading.check_intact

        def watch(path):
            seen.append(checkpoint_paths.step_of(path))
            check(path)

        monkeypatch.setattr(checkpoint_reading, "check_intact", watch)
        saved, _ = open_run(tmp_path, keep=2)
        saved.restore()
        assert seen == read
        assert saved._best.value == 0.9
        assert not caplog.records


class TestChosen:
    """The setting `--checkpoint`."""

    @pytest.fixture
    def run_with_a_best(self, run_of_three):
        folder, values = run_of_three
        saved, trainer = open_run(folder, keep=5)
        saved.restore()
        saved._best = best(2, 0.5)
        saved.save(RunState(4))
        return folder, {**values, 4: values_of_run(trainer)}

    @pytest.mark.parametrize(
        ("checkpoint", "step"),
        [("newest", 4), ("best", 2), ("step-1", 1), ("step-3", 3)],
    )
    def test_is_loaded(self, run_with_a_best, checkpoint, step):
        folder, values = run_with_a_best
        _, network, path = load_network(folder, checkpoint=checkpoint)
        assert path.endswith(f"step-{step}")
        toy.assert_identical(toy.values_of(network.variables), values[step][:5])

    def test_the_spec_is_that_of_the_chosen_one(self, run_with_a_best):
        folder, _ = run_with_a_best
        label = dataclasses.replace(toy.ONE.labels[1], keep_components=7)
        domain = dataclasses.replace(toy.ONE, labels=(toy.ONE.labels[0], label))
        plan = dataclasses.replace(toy.PLAN, domains=(domain, toy.TWO))
        saved, _ = open_run(folder, plan=plan)
        saved.restore()
        saved.save(RunState(5))
        assert loading.load_spec(folder).plan == plan
        assert loading.load_spec(folder, "best").plan == toy.PLAN

    def test_must_exist(self, run_of_three):
        with pytest.raises(InputError) as caught:
            load_network(run_of_three[0], checkpoint="step-7")
        assert str(caught.value) == (
            "`checkpoint`: expected newest, best or one of step-1, step-2, step-3 in "
            f"{run_of_three[0] / 'checkpoints'}. Received: step-7"
        )

    @pytest.mark.parametrize("checkpoint", ["latest", "", "step-3.index", "../x"])
    def test_must_have_a_valid_name(self, run_of_three, checkpoint):
        with pytest.raises(InputError, match="`checkpoint`: expected newest, best or"):
            load_network(run_of_three[0], checkpoint=checkpoint)

    def test_best_is_not_recorded(self, run_of_three):
        with pytest.raises(InputError, match="step-3 records no best checkpoint"):
            load_network(run_of_three[0], checkpoint="best")

    def test_best_was_removed(self, run_with_a_best):
        folder, _ = run_with_a_best
        checkpoint_paths.remove([str(folder / "checkpoints" / "step-2")])
        with pytest.raises(InputError, match=r"Received: best \(step-2\)"):
            load_network(folder, checkpoint="best")

    @pytest.mark.parametrize("checkpoint", ["best", "step-2"])
    def test_must_be_undamaged(self, run_with_a_best, checkpoint):
        folder, _ = run_with_a_best
        truncate(folder, 2)
        with pytest.raises(InputError, match="step-2: expected an undamaged"):
            load_network(folder, checkpoint=checkpoint)

    def test_best_is_found_if_the_newest_is_damaged(self, run_with_a_best, caplog):
        folder, _ = run_with_a_best
        saved, _ = open_run(folder, keep=5)
        saved.restore()
        saved.save(RunState(5))
        truncate(folder, 5, ".index")
        assert load_network(folder, checkpoint="best")[2].endswith("step-2")
        assert "step-5: expected an undamaged checkpoint" in caplog.text


class TestKeep:
    @pytest.mark.parametrize(
        ("keep", "left"), [(1, [4]), (2, [3, 4]), (5, [1, 2, 3, 4])]
    )
    def test_the_last_are_kept(self, tmp_path, keep, left):
        saved, _ = open_run(tmp_path, keep=keep)
        for step in (1, 2, 3, 4):
            saved.save(RunState(step))
        assert names(tmp_path) == [f"step-{step}" for step in left]

    def test_checkpoints_of_earlier_runs_count(self, run_of_three):
        folder, _ = run_of_three
        saved, _ = open_run(folder, keep=2)
        saved.restore()
        saved.save(RunState(4))
        assert names(folder) == ["step-3", "step-4"]


class TestLoadNetwork:
    def test_needs_only_the_folder(self, run_of_three, tmp_path_factory):
        folder, values = run_of_three
        moved = tmp_path_factory.mktemp("moved") / "model"
        shutil.move(folder, moved)
        spec, network, path = load_network(moved)
        assert spec == toy.make_trainer()[0]
        assert path == str(moved / "checkpoints" / "step-3")
        toy.assert_identical(toy.values_of(network.variables), values[3][:5])

    @pytest.mark.parametrize(
        "adapter",
        [
            "separable",
            *(
                pytest.param(name, marks=pytest.mark.slow)
                for name in ("series", "parallel", "none")
            ),
        ],
    )
    def test_finds_every_variable_of_the_real_network(
        self, tmp_path, adapter, monkeypatch
    ):
        monkeypatch.setattr(loading, "build_network", build_network)
        spec = ModelSpec(
            plan=toy.PLAN, pools=(1, 0, 1), base_channels=2, adapter=adapter
        )
        network = build_network(spec)
        generator = np.random.default_rng(0)
        for variable in network.variables:
            variable.assign(generator.normal(size=variable.shape))
        Checkpoints(tmp_path, spec, network, {}, keep=1).save(RunState(1))
        _, loaded, _ = load_network(tmp_path)
        toy.assert_identical(
            toy.values_of(loaded.variables), toy.values_of(network.variables)
        )

    def test_reads_a_plan_that_was_edited(self, run_of_three):
        # Training does not depend on the clean-up: it continues with the new plan.
        folder, _ = run_of_three
        label = dataclasses.replace(toy.ONE.labels[1], keep_components=7)
        domain = dataclasses.replace(toy.ONE, labels=(toy.ONE.labels[0], label))
        plan = dataclasses.replace(toy.PLAN, domains=(domain, toy.TWO))
        saved, _ = open_run(folder, plan=plan)
        saved.restore()
        saved.save(RunState(4))
        assert load_network(folder)[0].plan == plan

    @every_truncation
    def test_uses_the_previous_one_if_the_newest_is_damaged(
        self, run_of_three, caplog, suffix, fraction
    ):
        folder, values = run_of_three
        truncate(folder, 3, suffix, fraction)
        _, network, path = load_network(folder)
        assert path.endswith("step-2")
        toy.assert_identical(toy.values_of(network.variables), values[2][:5])
        (message,) = [
            r.getMessage() for r in caplog.records if "damaged" in r.msg % r.args
        ]
        assert "step-3: expected an undamaged checkpoint. Received: a trunc" in message
        assert message.endswith("; using the previous one")

    def test_an_only_damaged_checkpoint_is_an_error(self, tmp_path):
        open_run(tmp_path)[0].save(RunState(3))
        truncate(tmp_path, 3)
        with pytest.raises(InputError, match="step-3: expected an undamaged"):
            load_network(tmp_path)

    def test_only_damaged_checkpoints_are_an_error(self, run_of_three):
        folder, _ = run_of_three
        for step in (1, 2, 3):
            truncate(folder, step)
        words = f"{folder / 'checkpoints'}: expected an undamaged .*: 3 damaged ones"
        with pytest.raises(InputError, match=words):
            load_network(folder)

    @pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
    def test_the_spec_of_the_previous_one_is_read_silently(
        self, run_of_three, caplog, suffix
    ):
        # `load_network` warns, and commands call both.
        folder, _ = run_of_three
        truncate(folder, 3, suffix, 0)
        assert loading.load_spec(folder).plan == toy.PLAN
        assert "damaged" not in caplog.text

    @pytest.mark.parametrize("checkpoint", ["newest", "best", "step-3"])
    @pytest.mark.parametrize("read", [load_network, loading.load_spec])
    def test_a_checkpoint_is_removed_while_it_is_read(
        self, run_of_three, caplog, monkeypatch, checkpoint, read
    ):
        folder, _ = run_of_three
        list_checkpoints = loading.list_checkpoints

        def list_and_train_on(within):
            monkeypatch.setattr(loading, "list_checkpoints", list_checkpoints)
            found = list_checkpoints(within)
            for path in within.glob("step-3.*"):
                path.with_name(f"step-4{path.suffix}").write_bytes(path.read_bytes())
            checkpoint_paths.remove(found)
            return found

        monkeypatch.setattr(loading, "list_checkpoints", list_and_train_on)
        if checkpoint == "newest":
            assert read(folder, checkpoint=checkpoint)
        else:
            with pytest.raises(InputError, match="expected newest"):
                read(folder, checkpoint=checkpoint)
        assert not caplog.records

    def test_no_checkpoint(self, tmp_path):
        words = f"{tmp_path}: expected a model .* Received: no checkpoint in"
        with pytest.raises(InputError, match=words):
            load_network(tmp_path)
        with pytest.raises(InputError, match="expected a model"):
            load_network(tmp_path / "nowhere")

    def test_a_checkpoint_of_something_else(self, tmp_path):
        folder = tmp_path / "checkpoints"
        tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(folder / "step-1"))
        with pytest.raises(InputError, match="step-1: expected a checkpoint of u2net"):
            load_network(tmp_path)

    @pytest.mark.parametrize(
        "spec", [tf.constant(1.0), tf.constant(b"\xff\xfe"), tf.constant(["a", "b"])]
    )
    def test_a_checkpoint_with_an_invalid_spec(self, tmp_path, spec):
        folder = tmp_path / "checkpoints"
        folder.mkdir()
        tf.raw_ops.SaveV2(
            prefix=str(folder / "step-1"),
            tensor_names=["spec"],
            shape_and_slices=[""],
            tensors=[spec],
        )
        with pytest.raises(InputError, match="step-1: expected a checkpoint of u2net"):
            load_network(tmp_path)

    def test_a_network_of_another_version(self, run_of_three, monkeypatch):
        folder, _ = run_of_three

        def build_more(spec, **kwargs):
            network = toy.build_toy_network(spec, **kwargs)
            paths = {**network.variables_by_path(), "more": tf.Variable([1.0, 2.0])}
            network.variables_by_path = lambda: paths
            return network

        monkeypatch.setattr(loading, "build_network", build_more)
        with pytest.raises(InputError, match="step-3: expected the variables of"):
            load_network(folder)


class TestDamage:
    @every_truncation
    def test_the_previous_one_is_used_with_a_warning(
        self, run_of_three, caplog, suffix, fraction
    ):
        folder, values = run_of_three
        truncate(folder, 3, suffix, fraction)
        saved, trainer = open_run(folder, seed=1)
        assert saved.restore().step == 2
        toy.assert_identical(values_of_run(trainer), values[2])
        assert re.search("step-3: expected an undamaged .*previous", caplog.text)

    def test_a_flipped_bit_is_noticed(self, run_of_three):
        folder, values = run_of_three
        flip_bit(folder, 3)
        saved, trainer = open_run(folder, seed=1)
        assert saved.restore().step == 2
        toy.assert_identical(values_of_run(trainer), values[2])

    def test_the_run_continues_from_there(self, run_of_three):
        folder, _ = run_of_three
        truncate(folder, 3)
        saved, trainer = open_run(folder, seed=1)
        saved.restore()
        change(trainer)
        saved.save(RunState(3))
        again, other = open_run(folder, seed=2)
        assert again.restore().step == 3
        toy.assert_identical(values_of_run(other), values_of_run(trainer))

    def test_all_damaged_is_an_error(self, run_of_three):
        folder, _ = run_of_three
        for step in (1, 2, 3):
            truncate(folder, step)
        saved, _ = open_run(folder)
        with pytest.raises(InputError, match="Received: 3 damaged ones"):
            saved.restore()

    def test_a_damaged_one_of_a_later_step_is_removed(self, run_of_three):
        # With longer epochs, the next step is not that of the damaged checkpoint.
        folder, _ = run_of_three
        truncate(folder, 3)
        saved, _ = open_run(folder, keep=1)
        assert saved.restore().step == 2
        saved.save(RunState(2))
        assert names(folder) == ["step-2"]

    def test_checkpoints_are_ordered_by_step(self, run_of_three):
        folder, _ = run_of_three
        saved, _ = open_run(folder)
        saved.save(RunState(10))
        assert names(folder) == ["step-10", "step-2", "step-3"]
        assert open_run(folder)[0].restore().step == 10


class TestKilled:
    """Writing or removing is interrupted at any point."""

    @contextlib.contextmanager
    def interrupted_at(self, number):
        """Interrupts at the renaming or removal of a file with this number."""
        done = []

        def wrap(original):
            def call(*arguments, **keywords):
                done.append(original)
                if len(done) > number:
                    raise KeyboardInterrupt
                return original(*arguments, **keywords)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", wrap(os.replace))
            patch.setattr(pathlib.Path, "unlink", wrap(pathlib.Path.unlink))
            # A killed process does not clean up, and its id is no longer in use.
            patch.setattr(shutil, "rmtree", lambda *arguments, **keywords: None)
            patch.setattr(os, "getpid", lambda: 999_999_999)
            yield

    # Data and index of the new one are renamed, then older ones are removed.
    @pytest.mark.parametrize(
        ("number", "found_step"),
        [
            (0, 3),
            (1, 3),
            (2, 4),
            (5, 4),
            *(
                pytest.param(*values, marks=pytest.mark.slow)
                for values in ((3, 4), (4, 4))
            ),
        ],
    )
    def test_a_checkpoint_is_complete_or_absent(
        self, run_of_three, caplog, number, found_step
    ):
        folder, values = run_of_three
        saved, trainer = open_run(folder, seed=1, keep=1)
        with self.interrupted_at(number), pytest.raises(KeyboardInterrupt):
            saved.save(RunState(4))
        assert load_network(folder)[2].endswith(f"step-{found_step}")
        again, other = open_run(folder, seed=2, keep=1)
        assert again.restore().step == found_step
        expected = values_of_run(trainer) if found_step == 4 else values[3]
        toy.assert_identical(values_of_run(other), expected)
        again.save(RunState(5))
        found = {path.name for path in (folder / "checkpoints").iterdir()}
        assert found == {"step-5.index", "step-5.data-00000-of-00001"}
        assert "damaged" not in caplog.text

    # The old index is removed, then data and index of the new one are renamed.
    @pytest.mark.parametrize("number", range(4))
    def test_one_of_the_same_step_is_replaced_or_kept(
        self, run_of_three, caplog, number
    ):
        folder, values = run_of_three
        for step in (1, 2):
            checkpoint_paths.remove([str(folder / "checkpoints" / f"step-{step}")])
        saved, trainer = open_run(folder, seed=1, keep=1)
        saved.restore()
        change(trainer)
        done = number == 3
        with self.interrupted_at(number), pytest.raises(KeyboardInterrupt):
            saved.save(RunState(3, logs={"step": 3}))
        again, other = open_run(folder, seed=2, keep=1)
        state = again.restore()
        assert state.logs == ({"step": 3} if done else None)
        expected = values_of_run(trainer) if done else values[3]
        toy.assert_identical(values_of_run(other), expected)
        found = {path.name for path in (folder / "checkpoints").iterdir()}
        assert found == {"step-3.index", "step-3.data-00000-of-00001"}
        assert "damaged" not in caplog.text

    def test_files_without_an_index_are_removed(self, run_of_three):
        folder, _ = run_of_three
        before = set((folder / "checkpoints").iterdir())
        (folder / "checkpoints" / ".unfinished").mkdir()
        (folder / "checkpoints" / ".unfinished" / "step-4_temp").mkdir()
        (folder / "checkpoints" / "step-4.data-00000-of-00001").write_text("x")
        (folder / "checkpoints" / "notes.data-1").write_text("of somebody else")
        open_run(folder)
        after = set((folder / "checkpoints").iterdir())
        assert {path.name for path in after - before} == {"notes.data-1"}


class TestPowerCut:
    """A power cut at any time while saving."""

    def newest(self, folder):
        """Step of the newest intact checkpoint, from which a run resumes."""

        def read(path):
            checkpoint_reading.check_intact(path)
            return checkpoint_paths.step_of(path)

        paths = checkpoint_paths.list_checkpoints(folder)
        return checkpoint_reading.read_newest_intact(paths[::-1], read, quietly=True)

    @pytest.mark.parametrize("keep", [1, 3])
    def test_the_last_checkpoint_or_the_new_one_loads(
        self, run_of_three, tmp_path_factory, keep
    ):
        folder, _ = run_of_three
        saved, _ = open_run(folder, keep=keep)
        with PowerCuts(folder / "checkpoints", ignored=(".partial-",)) as cuts:
            saved.save(RunState(4))
        found = set()
        for state in cuts.states:
            after = cuts.restore(state, tmp_path_factory.mktemp("after"))
            found.add(self.newest(after))
            # The other checkpoints are not damaged either.
            for path in checkpoint_paths.list_checkpoints(after):
                checkpoint_reading.check_intact(path)
        assert found == {3, 4}
        for state in cuts.last:
            after = cuts.restore(state, tmp_path_factory.mktemp("last"))
            assert self.newest(after) == 4

    def test_a_checkpoint_that_is_replaced(self, run_of_three, tmp_path_factory):
        folder, _ = run_of_three
        saved, _ = open_run(folder, keep=1)
        with PowerCuts(folder / "checkpoints", ignored=(".partial-",)) as cuts:
            saved.save(RunState(3, logs={"step": 3}))

        def logs(state):
            after = cuts.restore(state, tmp_path_factory.mktemp("after"))
            checkpoint_paths.remove_leftovers(after)
            checkpoint_reading.check_intact(str(after / "step-3"))
            return CheckpointReader(str(after / "step-3")).state().logs

        assert {bool(logs(state)) for state in cuts.states} == {False, True}
        assert all(map(logs, cuts.last))


class TestAnotherModel:
    def test_the_difference_is_reported(self, run_of_three):
        folder, _ = run_of_three
        saved, _ = open_run(folder, pools=(2, 1, 1))
        with pytest.raises(InputError) as caught:
            saved.restore()
        assert "step-3: expected pools (2, 1, 1). Received: (1, 1, 1)" in str(
            caught.value
        )
        assert "Use another `model_dir`" in str(caught.value)

    def test_another_plan_is_reported(self, run_of_three):
        folder, _ = run_of_three
        domain = dataclasses.replace(toy.ONE, spacing_mm=(3.0, 1.0, 1.0))
        plan = dataclasses.replace(toy.PLAN, domains=(domain, toy.TWO))
        saved, _ = open_run(folder, plan=plan)
        with pytest.raises(InputError, match="Task91_One .* different spacing_mm"):
            saved.restore()

    def test_the_attempt_changes_nothing(self, run_of_three):
        folder, _ = run_of_three
        before = {p: p.read_bytes() for p in (folder / "checkpoints").iterdir()}
        with pytest.raises(InputError):
            open_run(folder, adapter="none")[0].restore()
        assert {p: p.read_bytes() for p in (folder / "checkpoints").iterdir()} == before

    def test_other_variables(self, run_of_three):
        # The same settings but another network, as with another version of the code.
        folder, _ = run_of_three
        spec, trainer = toy.make_trainer()
        network = toy.build_toy_network(dataclasses.replace(spec, base_channels=9))
        saved = Checkpoints(folder, spec, network, trainer.variables_by_path(), keep=3)
        with pytest.raises(InputError, match="step-3: expected the variables of"):
            saved.restore()


class TestFullDisk:
    @pytest.fixture
    def disk_is_full(self):
        """A context in which files are limited to 2000 bytes, as on a full disk."""

        @contextlib.contextmanager
        def limit():
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        return limit

    def test_is_reported_and_the_older_checkpoint_kept(self, tmp_path, disk_is_full):
        saved, _ = open_run(tmp_path, keep=1)
        saved.save(RunState(1))
        with disk_is_full(), pytest.raises(OSError, match="File too large") as caught:
            saved.save(RunState(2))
        folder = tmp_path / "checkpoints"
        assert caught.value.errno == errno.EFBIG
        assert caught.value.filename == str(folder)
        assert sorted(path.name for path in folder.iterdir()) == [
            "step-1.data-00000-of-00001",
            "step-1.index",
        ]
        assert load_network(tmp_path)[0].plan == toy.PLAN
        saved, _ = open_run(tmp_path)
        assert saved.restore().step == 1

    def test_an_error_while_a_checkpoint_is_replaced(self, tmp_path, monkeypatch):
        saved, _ = open_run(tmp_path)
        path = saved.save(RunState(1))
        index = pathlib.Path(f"{path}.index")
        before = {p: p.read_bytes() for p in index.parent.iterdir()}
        original = os.replace

        def fail(source, target):
            # The old checkpoint is moved back afterwards.
            if ".partial-" in str(source) and str(target) == str(index):
                raise OSError(errno.EIO, "the disk is tired")
            original(source, target)

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="the disk is tired"):
            saved.save(RunState(1, logs={"step": 1}))
        assert {p: p.read_bytes() for p in index.parent.iterdir()} == before

    @pytest.mark.parametrize("has_index", [True, False])
    def test_an_old_copy_never_replaces_a_checkpoint(self, tmp_path, has_index):
        """A process is killed while it removes the copy."""
        saved, _ = open_run(tmp_path, keep=1)
        path = pathlib.Path(saved.save(RunState(1)))
        copy = path.with_name("step-1.replaced")
        copy.mkdir()
        for part in path.parent.glob("step-1.[di]*"):
            if has_index or part.suffix != ".index":
                shutil.copy(part, copy)
        saved.save(RunState(2))
        saved, _ = open_run(tmp_path)
        assert saved.restore().step == 2
        assert not copy.exists()
        assert not list(path.parent.glob("step-1.*"))

    def test_an_incomplete_copy_is_removed(self, tmp_path):
        saved, _ = open_run(tmp_path)
        path = pathlib.Path(saved.save(RunState(1)))
        copy = path.with_name("step-7.replaced")
        copy.mkdir()
        shutil.copy(f"{path}.data-00000-of-00001", copy / "step-7.data-00000-of-00001")
        saved, _ = open_run(tmp_path)
        assert saved.restore().step == 1
        assert not copy.exists()

    def test_no_empty_folder_is_left(self, tmp_path, disk_is_full):
        saved, _ = open_run(tmp_path / "new" / "model")
        with disk_is_full(), pytest.raises(OSError, match="File too large"):
            saved.save(RunState(1))
        assert not list(tmp_path.iterdir())

    def test_other_errors_of_tensorflow_name_the_folder(self, tmp_path, monkeypatch):
        def fail(**arguments):
            raise tf.errors.UnknownError(None, None, "the disk is tired")

        saved, _ = open_run(tmp_path)
        monkeypatch.setattr(tf.raw_ops, "SaveV2", fail)
        with pytest.raises(OSError, match="TensorFlow: the disk is tired") as caught:
            saved.save(RunState(1))
        assert caught.value.filename == str(tmp_path / "checkpoints")

    def test_a_folder_that_cannot_be_created(self, tmp_path):
        (tmp_path / "file").write_text("in the way")
        saved, _ = open_run(tmp_path / "file")
        with pytest.raises(OSError, match=str(tmp_path / "file")):
            saved.save(RunState(1))


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?"])
def test_a_folder_that_is_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="`model_dir`: expected a path without"):
        checkpoint_paths.checkpoint_folder(tmp_path / name)


class TestModelsByDomain:
    @pytest.fixture
    def save(self, tmp_path):
        def call(name, *domains):
            spec = ModelSpec(plan=Plan(domains), pools=(1, 1, 1), base_channels=2)
            loading.save_model(tmp_path / name, spec, toy.build_toy_network(spec))
            return tmp_path / name

        return call

    def test_one_model(self, save):
        folder = save("a", toy.TWO, toy.ONE)
        assert loading.models_by_domain(folder) == {
            toy.TWO.name: folder,
            toy.ONE.name: folder,
        }

    def test_independent_models_next_to_other_folders(self, save, tmp_path):
        one, two = save("b", toy.ONE), save("a", toy.TWO)
        (tmp_path / "test" / "checkpoints").mkdir(parents=True)
        assert loading.models_by_domain(tmp_path) == {
            toy.TWO.name: two,
            toy.ONE.name: one,
        }

    def test_two_models_of_one_domain(self, save, tmp_path):
        save("a", toy.ONE, toy.TWO)
        save("b", toy.ONE)
        with pytest.raises(InputError) as caught:
            loading.models_by_domain(tmp_path)
        assert str(caught.value) == (
            f"{tmp_path}: expected one model for Task91_One. Received: "
            f"{tmp_path / 'a'} and {tmp_path / 'b'}. Give the folder of one of them"
        )

    def test_no_model(self, tmp_path):
        with pytest.raises(InputError, match="expected a model written by `python -m"):
            loading.models_by_domain(tmp_path)

    def test_a_damaged_model_does_not_stop_the_others(self, save, tmp_path, caplog):
        one, two = save("a", toy.ONE), save("b", toy.TWO)
        (two / "checkpoints" / "step-0.index").write_bytes(b"damaged")
        assert loading.models_by_domain(tmp_path) == {toy.ONE.name: one}
        assert "its domains are skipped" in caplog.text
        with pytest.raises(DamagedCheckpointError):
            loading.models_by_domain(tmp_path, skip_damaged=False)
        with pytest.raises(DamagedCheckpointError):
            loading.models_by_domain(two)

    def test_a_folder_of_models_is_not_a_model(self, save, tmp_path):
        save("a", toy.ONE)
        with pytest.raises(InputError, match=f"but models in {tmp_path / 'a'}$"):
            load_network(tmp_path)

    def test_a_model_does_not_hide_others(self, save, tmp_path):
        one = save("models/a", toy.ONE)
        with pytest.raises(InputError) as caught:
            save("models", toy.TWO)
        assert str(caught.value) == (
            f"{tmp_path / 'models'}: expected a folder without models in its "
            f"subfolders. Received: {one}. A model in the folder itself would be used "
            "instead of them"
        )
        assert loading.models_by_domain(tmp_path / "models") == {toy.ONE.name: one}

    def test_a_model_next_to_folders_without_models(self, save, tmp_path):
        (tmp_path / "a" / "b" / "checkpoints").mkdir(parents=True)
        folder = save("a", toy.ONE)
        save("a/c", toy.TWO)
        # A resumed run of the outer model passes.
        loading.require_no_inner_models(folder)

    def test_a_model_does_not_replace_another(self, save):
        folder = save("a", toy.ONE)
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(InputError, match="expected a folder without a model"):
            save("a", toy.TWO)
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (tf.errors.PermissionDeniedError, InputError),
        (tf.errors.DataLossError, DamagedCheckpointError),
    ],
)
def test_an_unreadable_checkpoint_is_not_damaged(error, kind):
    """Damaged checkpoints are removed when the next one is saved."""
    with (
        pytest.raises(InputError, match="step-3") as raised,
        checkpoint_reading.translate_tf_errors("step-3"),
    ):
        raise error(None, None, "-")
    assert raised.type is kind


ODD_NAMES = (
    *("step--1", "step-+1", "step- 1", "step-1e5", "step-1.0", "step-1_0", "step-"),
    *("step-007", "step-00", "step-٣", "step-²", "step-99999999999999999999", "STEP-5"),
    *("step-5.old", "step-1000000000000"),
)


class TestOtherNames:
    """Files and folders with names similar to those of checkpoints."""

    @pytest.fixture
    def odd(self, run_of_three):
        folder = run_of_three[0] / "checkpoints"
        for number, name in enumerate(ODD_NAMES):
            for suffix in (".index", ".data-00000-of-00001"):
                if number % 2:
                    shutil.copy(folder / f"step-3{suffix}", folder / f"{name}{suffix}")
                else:
                    (folder / f"{name}{suffix}").write_bytes(b"something else")
        (folder / "step-8.index").mkdir()
        (folder / "step-9.index").symlink_to(folder / "step-9.index")
        return folder

    def test_are_ignored_and_kept(self, odd):
        paths = checkpoint_paths.list_checkpoints(odd)
        assert [pathlib.Path(path).name for path in paths] == [
            *("step-1", "step-2", "step-3")
        ]
        others = set(odd.iterdir()) - {
            path for n in (1, 2, 3) for path in odd.glob(f"step-{n}.*")
        }
        saved, _ = open_run(odd.parent, keep=1)
        assert saved.restore().step == 3
        saved.save(RunState(4))
        assert load_network(odd.parent)[2] == str(odd / "step-4")
        assert {path for path in others if os.path.lexists(path)} == others

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_cannot_be_requested(self, odd, name):
        with pytest.raises(InputError, match="`checkpoint`: expected newest, best or"):
            load_network(odd.parent, checkpoint=name)

    def test_are_reported_if_there_is_no_other(self, odd):
        for path in checkpoint_paths.list_checkpoints(odd):
            pathlib.Path(f"{path}.index").unlink()
        with pytest.raises(
            InputError, match="no checkpoint in .*, but STEP-5.index, step- 1"
        ):
            load_network(odd.parent)


def test_a_checkpoint_smaller_than_its_network_is_refused_unbuilt(
    tmp_path, monkeypatch
):
    """A network of 8 GB needs a file of that size."""
    spec, trainer = toy.make_trainer()
    spec = dataclasses.replace(spec, base_channels=64, pools=(6, 6, 6), adapter="none")
    Checkpoints(tmp_path, spec, trainer.network, {}, keep=1).save(RunState())
    monkeypatch.setattr(loading, "build_network", None)
    with pytest.raises(InputError, match=r"step-0: expected at least 7,248,.* bytes"):
        load_network(tmp_path)
