import dataclasses
import pathlib
import re
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
import toy
from recorded_progress import RecordedProgress

from u2net_tf.config import flagfile
from u2net_tf.config.data import DataConfig
from u2net_tf.config.training import TrainConfig
from u2net_tf.errors import InputError
from u2net_tf.models.loading import load_network
from u2net_tf.models.spec import ModelSpec, common_pools
from u2net_tf.plan.domains import Plan
from u2net_tf.shards.manifest import load_manifest
from u2net_tf.training import batches, runs, strategy, training_data
from u2net_tf.training.domain_losses import DomainLoss
from u2net_tf.training.gate_loss import NO_GATES

pytestmark = pytest.mark.usefixtures("toy_network", "shared_input", "eager_steps")


class TestPools:
    ONE_POOL = Plan((toy.ONE, toy.TWO))
    TWO_POOLS = Plan((toy.ONE, dataclasses.replace(toy.TWO, pools=(0, 1, 1))))

    def test_of_the_setting(self):
        assert common_pools(self.TWO_POOLS, (2, 1, 0)) == (2, 1, 0)

    def test_of_the_plan_if_its_domains_agree(self):
        assert common_pools(self.ONE_POOL, None) == (1, 1, 1)
        assert common_pools(self.TWO_POOLS.select([toy.TWO.name]), None) == (0, 1, 1)

    def test_are_required_if_the_domains_differ(self):
        with pytest.raises(InputError) as caught:
            common_pools(self.TWO_POOLS, None)
        assert str(caught.value) == (
            "`pools`: expected a value, since the domains of the plan have "
            "different pools. Received: none, with [(0, 1, 1), (1, 1, 1)] in the plan"
        )

    def test_zero(self):
        with pytest.raises(InputError, match=r"`pools`: .* Received: \(0, 0, 0\)"):
            common_pools(self.ONE_POOL, (0, 0, 0))

    def test_zero_in_the_plan(self):
        flat = Plan((dataclasses.replace(toy.ONE, pools=(0, 0, 0)),))
        words = r"`pools`: .* Received: \(0, 0, 0\) in the plan of Task91_One"
        with pytest.raises(InputError, match=words):
            common_pools(flat, None)

    def test_reach_the_model(self, train, tmp_path):
        train(tmp_path / "a", pools=(2, 1, 1), steps_per_epoch=1)
        assert load_network(tmp_path / "a")[0].pools == (2, 1, 1)
        train(tmp_path / "b", pools=None, steps_per_epoch=1)
        assert load_network(tmp_path / "b")[0].pools == (1, 1, 1)


class TestPatches:
    def test_of_a_domain_with_too_many_pools(self, train, tmp_path):
        with pytest.raises(InputError) as caught:
            train(tmp_path, pools=(3, 1, 1))
        assert str(caught.value) == (
            "patch_size: expected sizes divisible by 2**pools, with pools "
            "(3, 1, 1). Received: (4, 8, 8) for Task92_Two"
        )
        assert list(tmp_path.iterdir()) == []

    def test_of_the_setting_with_too_many_pools(self, train, tmp_path):
        with pytest.raises(InputError, match=r"Received: \(8, 8, 7\) for Task91_One"):
            train(tmp_path, patch_size=(8, 8, 7))

    @pytest.mark.parametrize(
        ("patch_size", "sizes"),
        [(None, [(8, 8, 8), (4, 8, 8)]), ((4, 6, 8), [(4, 6, 8), (4, 6, 8)])],
    )
    def test_are_cropped_at_the_domain_s_size_and_resized_to_the_network_s(
        self, train, tmp_path, monkeypatch, patch_size, sizes
    ):
        seen = []

        class Watching(toy.ToyNetwork):
            def call(self, inputs, *, domain, training=None):
                seen.append((domain, training, tuple(inputs.shape[1:4])))
                return super().call(inputs, domain=domain, training=training)

        monkeypatch.setattr(toy, "ToyNetwork", Watching)
        train(
            tmp_path,
            patch_size=patch_size,
            resize_method="cubic",
            validate_every_epochs=1,
        )
        # Each size is traced for the steps and for the windows of the validation.
        assert set(seen) == {
            (domain, training, size)
            for domain, size in enumerate(sizes)
            for training in (True, False)
        }
        spec, _, _ = load_network(tmp_path)
        assert (spec.patch_size, spec.resize_method) == (patch_size, "cubic")


class TestModel:
    def test_every_setting_reaches_the_network(self, train, tmp_path):
        network = {"base_channels": 3, "adapter": "series"}
        train(tmp_path, **network, last_decoder_kernel=3, steps_per_epoch=1)
        spec, _, _ = load_network(tmp_path)
        network["second_up_conv"] = "full"
        assert spec == ModelSpec(plan=spec.plan, pools=(1, 1, 1), **network)

    def test_precision_reaches_the_network_and_is_kept(self, train, tmp_path):
        run = train(tmp_path, precision="mixed_bfloat16", steps_per_epoch=1)
        assert run._trainer.network.compute_dtype == "bfloat16"
        words = "expected precision float32. Received: mixed_bfloat16"
        with pytest.raises(InputError, match=words):
            train(tmp_path, steps_per_epoch=1)

    def test_domains_in_the_given_order(self, train, tmp_path, read_rows):
        names = [toy.TWO.name, toy.ONE.name]
        train(tmp_path, domains=tuple(names), steps_per_epoch=1)
        assert load_network(tmp_path)[0].plan.names == tuple(names)
        # The only step trained the first of the given domains.
        (row,) = read_rows(tmp_path)
        assert row["loss/Task91_One"] == ""

    def test_skipped_cases_are_not_in_its_plan(self, tiny_data):
        plan = tiny_data.plan
        manifests = [load_manifest(tiny_data.data_dir, name) for name in plan.names]
        bad = {"one_1": "reason", "one_4": "reason", "one_5": "reason"}
        manifests[0] = dataclasses.replace(manifests[0], skipped=bad)
        one, two = training_data.without_skipped(plan, manifests).domains
        assert (one.train, one.validation, one.test) == (
            ("one_0", "one_2"),
            ("one_3",),
            (),
        )
        assert two == plan.domains[1]

    def test_an_unknown_domain(self, train, tmp_path):
        with pytest.raises(InputError, match="expected one of Task91_One, Task92_Two"):
            train(tmp_path, domains=("Task93_Three",))

    def test_settings_reach_the_trainer(self, train, tmp_path, monkeypatch):
        recorded = []

        class Watching(runs.Trainer):
            def __init__(self, network, **options):
                recorded.append(options)
                super().__init__(network, **options)

        monkeypatch.setattr(runs, "Trainer", Watching)
        train(
            tmp_path,
            steps_per_epoch=1,
            learning_rate=0.125,
            weight_decay=0.5,
            weight_ema_decay=0.75,
            detach_focal_factor=True,
            seed=3,
        )
        assert recorded == [
            {
                "learning_rate": 0.125,
                "weight_decay": 0.5,
                "weight_ema_decay": 0.75,
                "detach_focal_factor": True,
                "strategy": tf.distribute.get_strategy(),
                "jit_compile": False,
                "implementation": None,
                "head_weights": None,
                "gate_loss": NO_GATES,
                "domain_losses": (DomainLoss(), DomainLoss()),
                "seed": 3,
            }
        ]

    def test_the_seed_determines_the_weights(self, train, tmp_path):
        runs = [
            train(tmp_path / str(i), seed=seed, steps_per_epoch=1)
            for i, seed in enumerate((0, 0, 1))
        ]
        weights = [run._trainer.network.trunk.numpy() for run in runs]
        np.testing.assert_array_equal(weights[0], weights[1])
        assert (weights[0] != weights[2]).all()


class TestDistribution:
    @pytest.fixture
    def gpus(self, monkeypatch, simulate_gpus):
        """Simulates a number of GPUs; a mirrored strategy is then just a string."""

        def pretend(number):
            simulate_gpus(number)
            monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: "mirrored")

        return pretend

    @pytest.mark.parametrize(
        ("distribution", "number", "mirrored"),
        [
            ("auto", 0, False),
            ("auto", 1, False),
            ("auto", 2, True),
            ("none", 2, False),
            ("mirrored", 0, True),
        ],
    )
    def test_strategy(self, gpus, distribution, number, mirrored):
        gpus(number)
        assert (
            strategy.make_strategy.__wrapped__(distribution) == "mirrored"
        ) == mirrored

    def test_a_batch_that_cannot_be_split(self):
        words = (
            "`batch_size`: expected a multiple of the 2 devices. Received: 3 for "
            "Task91_One. `distribution`=none trains on one device"
        )
        with pytest.raises(InputError, match=words):
            self.check(DataConfig(data_dir="", batch_size=3), 2)
        with pytest.raises(InputError, match="the 4 devices. Received: 2 for Task91"):
            self.check(DataConfig(data_dir=""), 4)
        self.check(DataConfig(data_dir=""), 2)

    def check(self, inputs, num_replicas):
        spec = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1))
        devices = types.SimpleNamespace(num_replicas_in_sync=num_replicas)
        training_data.check_sizes(spec, toy.PLAN.domains, inputs, devices)


@pytest.fixture(scope="module")
def saved(train, made_once, tmp_path_factory):
    """A folder after one step. Tests must not change it."""
    folder = tmp_path_factory.mktemp("saved") / "a" / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "build_network", toy.build_toy_network)
        patch.setattr(batches, "training_dataset", made_once)
        train(folder, steps_per_epoch=1)
    return folder


class TestFolder:
    @pytest.fixture
    def folder(self, saved, tmp_path):
        """A copy of `saved` that a test may change."""
        return shutil.copytree(saved, tmp_path / "model")

    def test_is_created(self, saved):
        assert sorted(path.name for path in saved.iterdir()) == [
            "checkpoints",
            "flags.txt",
            "tensorboard",
            "training.csv",
        ]

    def test_contains_the_flags(self, train, folder):
        train(folder, seed=7, steps_per_epoch=1, max_epochs=2)
        lines = (folder / "flags.txt").read_text().splitlines()
        assert f"--model_dir={folder}" in lines
        assert "--seed=7" in lines

    def test_a_resumed_run_has_the_learning_rate_of_its_polynomial(
        self, train, tmp_path, caplog
    ):
        rule = {"steps_per_epoch": 1, "learning_rate_schedule": "polynomial"}
        train(tmp_path, max_epochs=2, learning_rate=0.2, **rule)
        caplog.clear()
        train(tmp_path, max_epochs=4, learning_rate=0.8, polynomial_power=1.0, **rule)
        (said,) = [text for text in caplog.messages if "changed flags" in text]
        assert said.startswith(
            "resuming from step 2 with changed flags; the new values apply from here, "
            "where the learning rate is 0.4: was --"
        )

    def test_changed_flags_of_a_resumed_run_are_logged(
        self, train, make_config, folder, caplog
    ):
        # The saved flags have another `model_dir`.
        train(folder, steps_per_epoch=1, max_epochs=2)
        caplog.clear()
        kept = (folder / "flags.txt").read_bytes()
        changes = {"seed": 7, "learning_rate": 0.5, "detach_focal_factor": True}
        # This run has ended, so the flags have no effect and are not recorded.
        train(folder, steps_per_epoch=1, max_epochs=2, **changes)
        (said,) = [text for text in caplog.messages if "changed flags" in text]
        assert said.startswith(
            "the run has ended at step 2, so changed flags have no effect: was --node"
        )
        assert (folder / "flags.txt").read_bytes() == kept
        caplog.clear()
        changes["max_epochs"] = 3
        train(folder, steps_per_epoch=1, **changes)
        (said,) = [text for text in caplog.messages if "changed flags" in text]
        assert said == (
            "resuming from step 2 with changed flags; the new values apply "
            "from here, but the learning rate is the checkpoint's, 0.02: "
            "was --nodetach_focal_factor, now --detach_focal_factor; "
            "was --learning_rate=0.02, now --learning_rate=0.5; "
            "was --max_epochs=2, now --max_epochs=3; "
            "was --seed=0, now --seed=7"
        )
        text = flagfile.to_text(make_config(folder, steps_per_epoch=1, **changes))
        assert (folder / "flags.txt").read_text() == text

    @pytest.mark.parametrize("content", [b"--seed=\xff\n", b"--seed=0\n\0\0"])
    def test_unreadable_flags_are_unknown(self, train, folder, caplog, content):
        path = folder / "flags.txt"
        path.write_bytes(content)
        train(folder, seed=7, steps_per_epoch=1, max_epochs=2)
        (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert re.fullmatch(
            rf"{path}: expected UTF-8 text. Received: invalid bytes in line [12]. "
            rf"Renamed it to {path}.damaged; changed flags cannot be reported",
            said,
        )
        assert "--seed=7\n" in path.read_text()
        assert (folder / "flags.txt.damaged").read_bytes() == content

    @pytest.mark.parametrize(
        ("window", "decay", "warns"),
        [
            (2, {"loss_ema_decay": 0.7}, True),
            (2, {}, False),
            (0, {"loss_ema_decay": 0.7}, False),
        ],
    )
    def test_a_decay_that_is_not_used_is_logged(
        self, train, tmp_path, caplog, window, decay, warns
    ):
        settings = {"steps_per_epoch": 1, "loss_window_epochs": window, **decay}
        words = "`loss_ema_decay`=0.7 has no effect: with `loss_window_epochs`=2, the "
        train(tmp_path, **settings)
        assert (words in caplog.text) == warns
        caplog.clear()
        # A run that has ended uses neither.
        train(tmp_path, **settings)
        assert "has no effect:" not in caplog.text

    def test_flags_with_a_byte_order_mark_are_read(self, train, folder, caplog):
        (folder / "flags.txt").write_text("--seed=1\n", encoding="utf-8-sig")
        train(folder, seed=7, steps_per_epoch=1, max_epochs=2)
        assert caplog.text.rstrip().endswith("was --seed=1, now --seed=7")

    def test_flags_of_a_run_that_never_saved_are_ignored(self, train, tmp_path, caplog):
        (tmp_path / "flags.txt").write_text("--seed=7\n")
        train(tmp_path, steps_per_epoch=1)
        assert "changed flags" not in caplog.text

    @pytest.mark.parametrize(
        ("before", "now", "said"),
        [
            ("--a=1\n", "--a=1\n\n", []),
            ("--a=2048\n--b=1,2\n", "--a=2048.0\n--b=1.0,2.0\n", []),
            ("--a=1,2\n", "--a=1,3\n", ["was --a=1,2, now --a=1,3"]),
            ("--b=\n--a=1\n", "--a=1\n--b=\n", []),
            ("--a=1\n--a=2\n", "--a=2\n", []),
            ("--noise=1\n", "--noise=2\n", ["was --noise=1, now --noise=2"]),
            ("--a=b=1\n", "--a=b=2\n", ["was --a=b=1, now --a=b=2"]),
            ("", "--a=1\n", []),
            ("--a\n", "", []),
            ("--a\n", "--noa\n", ["was --a, now --noa"]),
        ],
    )
    def test_changes_of_flags(self, before, now, said):
        assert flagfile.changes(before, now) == said

    def test_optional_flags(self):
        optional = flagfile.optional_flags(TrainConfig)
        assert "gate_loss_weight" in optional
        assert not optional & {"patch_size", "seed", "model_dir"}
        text = "--gate_loss_weight=0.0\n--gone=1\n"
        now = "now --gate_loss_weight=0.0"
        assert flagfile.changes("", text, optional) == [f"was not given, {now}"]
        was = "was --gate_loss_weight=0.0"
        assert flagfile.changes(text, "", optional) == [f"{was}, now not given"]

    def test_of_another_model_is_not_changed(self, train, folder):
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(InputError, match="expected base_channels 8. Received: 4"):
            train(folder, base_channels=8, seed=7)
        after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert after == before

    def test_without_shards(self, train, tmp_path):
        words = f"{tmp_path / 'no' / 'plan.json'}: expected a plan"
        with pytest.raises(InputError, match=words):
            train(tmp_path / "model", data_dir=tmp_path / "no")
        assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def each(make_config, made_once, tmp_path_factory):
    """The settings of trained independent models. Tests must not change the models."""
    folder = tmp_path_factory.mktemp("each") / "m"
    config = make_config(folder, pools=None, independent=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "build_network", toy.build_toy_network)
        patch.setattr(batches, "training_dataset", made_once)
        runs.train_independently(config)
    return config


class TestIndependently:
    @pytest.fixture
    def config(self, make_config, tmp_path):
        return make_config(tmp_path / "m", pools=None, independent=True)

    def test_each_equals_a_model_trained_alone(self, train, tiny_data, each, tmp_path):
        for name in tiny_data.plan.names:
            train(tmp_path / "alone" / name, domains=(name,), pools=None)
        for domain in toy.PLAN.domains:
            folder = pathlib.Path(each.run.model_dir) / domain.name
            spec, network, _ = load_network(folder)
            assert spec.plan.names == (domain.name,)
            assert (spec.pools, spec.patch_size) == (domain.pools, None)
            _, alone, _ = load_network(tmp_path / "alone" / domain.name)
            toy.assert_identical(
                toy.values_of(network.variables), toy.values_of(alone.variables)
            )

    def test_one_of_them(self, config, tmp_path):
        runs.train_independently(config.with_changes(domains=(toy.TWO.name,)))
        assert [path.name for path in (tmp_path / "m").iterdir()] == [toy.TWO.name]

    def test_each_is_reported_when_it_is_finished(self, config, tmp_path):
        progress, finished = RecordedProgress(), []
        runs.train_independently(
            config,
            progress=progress,
            on_finished=lambda run: finished.append((run.model_dir, run.step)),
        )
        folders = [tmp_path / "m" / domain.name for domain in toy.PLAN.domains]
        assert finished == [(folder, 4) for folder in folders]
        assert progress.counts == 2 * [("epoch 1 of 1", "step", 4)]

    def test_rerun_has_nothing_to_do(self, each):
        root = pathlib.Path(each.run.model_dir)
        paths = sorted(root.rglob("*.index"))
        assert len(paths) == 2
        before = [path.stat().st_mtime_ns for path in paths]
        runs.train_independently(each)
        assert sorted(root.rglob("*.index")) == paths
        assert [path.stat().st_mtime_ns for path in paths] == before

    def test_flags_of_each_folder_repeat_that_model(self, each):
        folder = pathlib.Path(each.run.model_dir) / toy.TWO.name
        lines = (folder / "flags.txt").read_text().splitlines()
        for line in (
            "--noindependent",
            "--domains=Task92_Two",
            f"--model_dir={folder}",
        ):
            assert line in lines

    def test_a_folder_of_a_joint_model_is_not_changed(self, saved, config, tmp_path):
        shutil.copytree(saved, tmp_path / "m")
        with pytest.raises(
            InputError, match="expected a folder without a model. Received"
        ):
            runs.train_independently(config)
        assert not list((tmp_path / "m").glob("Task*"))

    def test_a_joint_model_does_not_hide_them(self, train, each):
        folder = pathlib.Path(each.run.model_dir)
        before = sorted(folder.rglob("*"))
        words = "expected a folder without models in its subfolders. Received"
        with pytest.raises(InputError, match=words):
            train(folder)
        assert sorted(folder.rglob("*")) == before

    def test_errors_of_the_last_are_found_before_the_first(self, config, tmp_path):
        with pytest.raises(InputError, match=r"Received: \(4, 8, 8\) for Task92_Two"):
            runs.train_independently(config.with_changes(pools=(3, 1, 1)))
        assert not (tmp_path / "m").exists()
