import dataclasses
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
import toy
from in_process import InProcess
from recorded_progress import RecordedProgress

from data_prep.config import ConversionConfig
from data_prep.convert import convert_domains
from u2net_tf.config.training import AdaptConfig
from u2net_tf.errors import InputError, StoppedEarlyError, StoppedError
from u2net_tf.models import composition
from u2net_tf.models.build import build_network
from u2net_tf.models.checkpoint_reading import CheckpointReader
from u2net_tf.models.loading import (
    load_network,
    load_spec,
    load_spec_and_state,
    save_model,
)
from u2net_tf.models.run_state import SeenCases
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Region
from u2net_tf.progress import silent
from u2net_tf.training import adaptation

THREE = "Task93_Three"
# `test_slow_proofs.py` and the tests of the commands compile their steps.
pytestmark = pytest.mark.usefixtures(
    "plain_implementation_in_module", "shared_input", "eager_steps"
)


@pytest.fixture(scope="module")
def data_dir(tiny_data, tmp_path_factory):
    """Shards of the two domains and of a third, a copy of the second."""
    folder = tmp_path_factory.mktemp("three")
    three = dataclasses.replace(tiny_data.plan.domains[1], name=THREE)
    plan = Plan((*tiny_data.plan.domains, three))
    settings = ConversionConfig(data_dir=str(folder))
    convert_domains.convert(plan, settings, executor=InProcess())
    return folder


def adapt(parent_dir, model_dir, domain, data_dir, *, progress=silent, **values):
    """Calls `adaptation.adapt` with small settings; takes other settings by name."""
    return adaptation.adapt(
        AdaptConfig.from_flat(
            {
                "from_": str(parent_dir),
                "domain": domain,
                "data_dir": str(data_dir),
                "model_dir": str(model_dir),
                "steps_per_epoch": 2,
                "max_epochs": 1,
                "validate_every_epochs": 0,
                "eval_cases": 1,
                # Large enough to change a variable visibly in one step.
                "weight_decay": 0.1,
                "learning_rate": 0.02,
                "distribution": "none",
                **values,
            }
        ),
        progress=progress,
    )


def save_parent(folder, plan, *, seed=0, initial_cases=(), **settings):
    """Saves a model of the first domain that was never trained."""
    spec = ModelSpec(
        plan=plan.select([toy.ONE.name]),
        **{"pools": (1, 1, 1), "base_channels": 2, "adapter": "none", **settings},
        patch_size=(4, 8, 8),
        resize_method="cubic",
    )
    network = build_network(spec)
    generator = np.random.default_rng(seed)
    for variable in network.variables:
        variable.assign(variable + 0.1 * generator.standard_normal(variable.shape))
    save_model(folder, spec, network, initial_cases=initial_cases)
    return folder


@pytest.fixture(scope="module")
def parent(tiny_data, tmp_path_factory):
    """A model of the first domain without adapters, which is fast to train."""
    return save_parent(tmp_path_factory.mktemp("parent"), tiny_data.plan)


@pytest.fixture(scope="module")
def adapted(parent, data_dir, tmp_path_factory):
    """The same model with the second domain added. Tests must not change it."""
    folder = tmp_path_factory.mktemp("adapted") / "model"
    adapt(parent, folder, toy.TWO.name, data_dir, validate_every_epochs=1)
    return folder


SHARP = {"architecture": "unet_sharp", "depth": 1, "adapter": "separable"}


@pytest.fixture(
    scope="module",
    params=[
        {"adapter": "none"},
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in ({"adapter": "separable"}, SHARP)
        ),
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def family(request, parent, adapted, tiny_data, data_dir, tmp_path_factory):
    """Folders of a model of one domain, then with a second and with a third added."""
    work = tmp_path_factory.mktemp("family")
    if request.param == {"adapter": "none"}:
        shutil.copytree(parent, work / "first")
        shutil.copytree(adapted, work / "second")
    else:
        save_parent(work / "first", tiny_data.plan, **request.param)
        validated = {"validate_every_epochs": 1}
        adapt(work / "first", work / "second", toy.TWO.name, data_dir, **validated)
    before = files_of(work / "second")
    adapt(work / "second", work / "third", THREE, data_dir, init=toy.TWO.name)
    assert files_of(work / "second") == before
    return work


def files_of(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def logits_of(folder, name):
    spec, network, _ = load_network(folder)
    domain = spec.plan.index(name)
    generator = np.random.default_rng(1)
    shape = (2, 4, 8, 8, network.num_modalities[domain])
    images = tf.constant(generator.standard_normal(shape), tf.float32)
    return network(images, domain=domain).numpy()


def test_cases_that_the_parent_was_initialized_with(
    tiny_data, data_dir, tmp_path, monkeypatch
):
    """The parent has seen cases of the new domain, which it does not have any more."""
    read, original = [], CheckpointReader.spec
    monkeypatch.setattr(
        CheckpointReader, "spec", lambda self: read.append(self.path) or original(self)
    )
    before = (
        SeenCases(toy.ONE.name, ("one_9",), True),
        SeenCases(toy.TWO.name, ("two_2",), True),
        SeenCases("Task93_Three", ("three_1",), True),
    )
    parent = save_parent(tmp_path / "a", tiny_data.plan, initial_cases=before)
    for epochs in (1, 2):
        del read[:]
        adapt(parent, tmp_path / "b", toy.TWO.name, data_dir, max_epochs=epochs)
        # Not twice, since training of the parent could write another one meanwhile.
        assert len([path for path in read if path.startswith(f"{parent}/")]) == 1
        _, state = load_spec_and_state(tmp_path / "b")
        # The names of cases of domains other than the new one are removed.
        third = SeenCases("Task93_Three", (), False)
        assert state.initial_cases == (before[1], third)


def test_can_be_stopped_like_training(parent, data_dir, tmp_path):
    with pytest.raises(StoppedEarlyError, match="`max_minutes`=1e-09: no step was"):
        adapt(parent, tmp_path / "new", toy.TWO.name, data_dir, max_minutes=1e-9)


class TestOldDomains:
    @pytest.mark.slow
    def test_have_the_same_logits_in_the_saved_model(self, family):
        for child, parent, names in (
            ("second", "first", [toy.ONE.name]),
            ("third", "second", [toy.ONE.name, toy.TWO.name]),
        ):
            for name in names:
                np.testing.assert_array_equal(
                    logits_of(family / child, name), logits_of(family / parent, name)
                )

    def test_names_of_their_cases_are_removed(self, adapted, parent):
        """No file of the new folder has them; names of the new domain's cases stay."""
        old, new = (load_spec(folder).plan for folder in (parent, adapted))
        names = [case for cases in old.domains[0].groups.values() for case in cases]
        content = b"".join(files_of(adapted).values())
        assert len(names) == 6
        assert not [name for name in names if name.encode() in content]
        assert new.domains[1].train == toy.TWO.train
        assert load_spec(adapted).count_cases(0) == load_spec(parent).count_cases(0)

    def test_a_change_is_an_error(self, parent, data_dir, tmp_path, monkeypatch):
        def change_variable(run, *arguments, **keywords):
            variable = run._trainer.network.shared_variables[0]
            variable.assign(variable + 1e-6)
            finish(run, *arguments, **keywords)

        finish = adaptation.runs.finish
        monkeypatch.setattr(adaptation.runs, "finish", change_variable)
        with pytest.raises(StoppedError, match="Task91_One .* DIFFERENT"):
            adapt(parent, tmp_path, toy.TWO.name, data_dir)


class TestNewDomain:
    def test_can_be_predicted(self, family):
        spec, _, _ = load_network(family / "third")
        assert spec.plan.names == (toy.ONE.name, toy.TWO.name, THREE)
        assert logits_of(family / "third", THREE).shape == (2, 4, 8, 8, 3)
        assert (spec.patch_size, spec.resize_method) == ((4, 8, 8), "cubic")

    def test_all_its_variables_are_trained_and_no_others(
        self, parent, data_dir, tmp_path
    ):
        run, _ = adapt(parent, tmp_path, toy.TWO.name, data_dir, init="random")
        trainer = run._trainer
        own = trainer.network.domain_variables(1)
        assert trainer.domains == (1,)
        optimized = [v for o in trainer.optimizers for v in o._trainable_variables]
        assert [id(v) for v in optimized] == [id(v) for v in own]
        assert [int(o.iterations) for o in trainer.optimizers] == [2]
        adaptation.keras.utils.set_random_seed(0)
        spec, network, _ = load_network(parent)
        domain = load_network(tmp_path)[0].plan.domains[1]
        adaptation.keras.utils.set_random_seed(0)
        _, fresh = composition.extend(spec, network, domain, init="random")
        for new, old in zip(own, fresh.domain_variables(1), strict=True):
            # A bias right before a norm has no gradient, nor decay while it is 0.
            if "bias" not in new.name:
                assert (new.numpy() != old.numpy()).any(), new.path

    def test_is_validated_and_logged(self, family, read_rows):
        (row,) = read_rows(family / "second")
        assert f"loss/{toy.ONE.name}" not in row
        assert float(row[f"loss/{toy.TWO.name}"]) > 0
        assert float(row[f"dice/{toy.TWO.name}/rim"]) >= 0

    def test_init_of_a_domain(self, parent, data_dir, tmp_path):
        """After steps of almost no length, the trunk still has its initial values."""
        rate = {"learning_rate": 1e-30, "min_learning_rate": 1e-31}
        name = toy.ONE.name
        adapt(parent, tmp_path, toy.TWO.name, data_dir, init=name, **rate)
        _, network, _ = load_network(tmp_path)
        for new, old in zip(
            network.trunk_domain_variables(1),
            network.trunk_domain_variables(0),
            strict=True,
        ):
            np.testing.assert_allclose(new.numpy(), old.numpy(), rtol=0, atol=1e-28)


class TestInterrupted:
    def test_resumes_bit_identically(self, adapted, parent, data_dir, tmp_path):
        shutil.copytree(adapted, tmp_path / "a")
        for name in "ab":
            adapt(parent, tmp_path / name, toy.TWO.name, data_dir, max_epochs=2)
        one, other = (load_network(tmp_path / name)[1] for name in "ab")
        toy.assert_identical(
            toy.values_of(one.variables), toy.values_of(other.variables)
        )

    def test_resumes_only_from_its_own_parent(
        self, adapted, tiny_data, data_dir, tmp_path
    ):
        other = save_parent(tmp_path / "other", tiny_data.plan, seed=1)
        with pytest.raises(InputError, match="`from`: expected the parent of the"):
            adapt(other, adapted, toy.TWO.name, data_dir)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"init": "random"}, "expected init random. Received: mean"),
            (
                {"precision": "mixed_bfloat16"},
                "expected precision mixed_bfloat16. Rec",
            ),
            (
                {"precision": "mixed_float16"},
                "expected precision mixed_float16. Rec",
            ),
        ],
    )
    def test_resumes_only_with_the_same_settings(
        self, adapted, parent, data_dir, changes, words
    ):
        before = files_of(adapted)
        with pytest.raises(InputError, match=words):
            adapt(parent, adapted, toy.TWO.name, data_dir, **changes)
        assert files_of(adapted) == before

    def test_the_newest_checkpoint_of_the_parent_is_damaged(
        self, adapted, parent, data_dir, tmp_path, caplog
    ):
        """The one before it is intact, and is used instead."""
        damaged = shutil.copytree(parent, tmp_path / "parent")
        folder = damaged / "checkpoints"
        for suffix in (".index", ".data-00000-of-00001"):
            shutil.copy(folder / f"step-0{suffix}", folder / f"step-9{suffix}")
        path = folder / "step-9.data-00000-of-00001"
        path.write_bytes(path.read_bytes()[:-100])
        adapt(damaged, tmp_path / "new", toy.TWO.name, data_dir)
        assert f"{folder / 'step-9'}: expected an undamaged" in caplog.text
        one, other = (load_network(f)[1] for f in (adapted, tmp_path / "new"))
        toy.assert_identical(
            toy.values_of(one.variables), toy.values_of(other.variables)
        )

    def test_train_does_not_resume_it(self, adapted, train, data_dir):
        words = r"trained domains \['Task91_One', 'Task92_Two'\]. Received: \['Task92"
        with pytest.raises(InputError, match=words):
            train(
                adapted,
                data_dir=data_dir,
                domains=(toy.ONE.name, toy.TWO.name),
                base_channels=2,
                adapter="none",
                patch_size=(4, 8, 8),
                resize_method="cubic",
            )


class TestSettings:
    def test_precision_and_resizing_of_patches(self, adapted, parent, data_dir):
        progress = RecordedProgress()
        run, checksums = adapt(
            parent,
            adapted.parent / "half",
            toy.TWO.name,
            data_dir,
            precision="mixed_bfloat16",
            progress=progress,
        )
        assert run._trainer.network.compute_dtype == "bfloat16"
        assert run._config.data.resize_method == "cubic"
        assert run._config.data.patch_size == (4, 8, 8)
        assert f"\n{toy.ONE.name}  " in checksums
        assert "identical" in checksums
        assert progress.counts == [("epoch 1 of 1", "step", 2)]

    def test_distribution(self, parent, data_dir, tmp_path, monkeypatch):
        def make(distribution):
            assert distribution == "mirrored"
            raise InputError("here", expected="this", received="asked")

        monkeypatch.setattr(adaptation, "make_strategy", make)
        with pytest.raises(InputError, match="asked"):
            adapt(parent, tmp_path, toy.TWO.name, data_dir, distribution="mirrored")


class TestErrors:
    @pytest.mark.parametrize(
        ("domain", "changes", "words"),
        [
            (toy.ONE.name, {}, "`domain`: .* Received: Task91_One"),
            ("Task99", {}, "domain 'Task99': expected one of Task91_One"),
            (toy.TWO.name, {"init": "zero"}, "`init`: expected random, mean or one of"),
            (toy.TWO.name, {"batch_size": 3}, "multiple of the 2 devices"),
        ],
    )
    def test_leave_nothing_behind(
        self, parent, data_dir, tmp_path, monkeypatch, domain, changes, words
    ):
        if "batch_size" in changes:
            two = types.SimpleNamespace(num_replicas_in_sync=2)
            monkeypatch.setattr(adaptation, "make_strategy", lambda name: two)
        with pytest.raises(InputError, match=words):
            adapt(parent, tmp_path / "new", domain, data_dir, **changes)
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("inner", [".", "checkpoints", "new/model"])
    def test_the_folder_of_the_parent(self, parent, data_dir, inner):
        before = files_of(parent)
        with pytest.raises(InputError, match="`model_dir`: expected a folder outside"):
            adapt(parent, parent / inner, toy.TWO.name, data_dir)
        assert files_of(parent) == before

    def test_a_folder_of_models(self, parent, data_dir, tmp_path):
        shutil.copytree(parent, tmp_path / "models" / "other")
        with pytest.raises(InputError, match="without models in its subfolders"):
            adapt(parent, tmp_path / "models", toy.TWO.name, data_dir)
        assert [path.name for path in (tmp_path / "models").iterdir()] == ["other"]

    def test_an_untrained_model_is_not_resumed(self, train, parent, data_dir):
        before = files_of(parent)
        words = "expected a trained model. Received: a composed one"
        with pytest.raises(InputError, match=words):
            train(
                parent,
                data_dir=data_dir,
                domains=(toy.ONE.name,),
                base_channels=2,
                adapter="none",
                patch_size=(4, 8, 8),
                resize_method="cubic",
            )
        assert files_of(parent) == before

    def test_a_patch_that_cannot_be_halved(self, tiny_data, data_dir, tmp_path):
        deep = save_parent(tmp_path / "deep", tiny_data.plan, pools=(3, 1, 1))
        with pytest.raises(InputError, match=r"Received: \(4, 8, 8\) for Task92_Two"):
            adapt(deep, tmp_path / "new", toy.TWO.name, data_dir)
        assert not (tmp_path / "new").exists()

    def test_only_the_regions_of_the_new_domain_can_enter_the_loss(
        self, tiny_data, data_dir, tmp_path
    ):
        one = dataclasses.replace(toy.ONE, regions=(Region("all", ("organ",)),))
        plan = dataclasses.replace(tiny_data.plan, domains=(one,))
        old = save_parent(tmp_path / "old", plan)
        with pytest.raises(InputError, match="no regions for Task92_Two. Received: 1"):
            adapt(old, tmp_path / "new", toy.TWO.name, data_dir, region_loss_weight=1.0)
        assert not (tmp_path / "new").exists()
