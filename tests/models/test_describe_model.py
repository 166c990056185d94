import dataclasses
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
import toy
from command_server import CommandServer

from u2net_tf import file_format
from u2net_tf.errors import InputError
from u2net_tf.models import (
    checkpoint_paths,
    describe_model,
    description,
    description_table,
    loading,
)
from u2net_tf.models.best import DICE, Best
from u2net_tf.models.checkpoint_index import CheckpointIndex
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.describe_model import describe_models
from u2net_tf.models.run_state import RunState, ScheduleState
from u2net_tf.networks.parameter_counts import count_all, network_without_values
from u2net_tf.plan.labels import Region
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.source_commit import source_commit

ARTEFACTS = pathlib.Path(__file__).parents[1] / "artefacts" / "0.1.0" / "models"
CSV = """epoch,step,loss,dice/Task91_One/organ,dice/Task92_Two/rim
1,10,0.5,0.25,
2,20,0.4,0.75,0.625
3,30,0.3,0.5,
"""
FLAGS = "--data_dir=shards\n--patch_size=8,8,8\n--nodetach_focal_factor\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of three epochs that trained only the second domain, as `adapt` does."""
    folder = tmp_path_factory.mktemp("models") / "model"
    spec, network = toy.make_model(patch_size=(8, 8, 8), resize_method="cubic")
    checkpoints = Checkpoints(
        folder,
        spec,
        network,
        {"optimizer/shared/iterations": np.int64(1)},
        keep=2,
        invariants={
            "precision": "mixed_float16",
            "trained domains": ["Task92_Two"],
            "shared variables": False,
            "fold": 2,
        },
    )
    for epoch, dice in ((1, 0.2), (2, 0.7), (3, 0.5)):
        state = RunState(
            step=10 * epoch,
            schedule=ScheduleState(
                learning_rate=0.25, epochs=epoch, finished=epoch == 3
            ),
            records="fedcba9876543210ff",
        )
        checkpoints.save(state, Best(10 * epoch, DICE, dice))
    (folder / "training.csv").write_text(CSV)
    (folder / "flags.txt").write_text(FLAGS)
    return folder


def test_network_and_domains(model):
    spec, network = toy.make_model()
    count = count_all(network)
    (found,) = describe_models(model)
    assert found.model_dir == str(model)
    assert (found.adapter, found.base_channels, found.pools) == (
        "separable",
        2,
        (1, 0, 1),
    )
    assert (found.patch_size, found.resize_method) == ((8, 8, 8), "cubic")
    assert (found.parameters, found.shared_parameters) == (count.total, count.shared)
    assert tuple(domain.parameters for domain in found.domains) == count.per_domain
    assert found.domains[1] == description.DomainDescription(
        name="Task92_Two",
        modalities=("T2", "ADC"),
        classes=("rim", "core"),
        regions={},
        ignore_label=None,
        spacing_mm=(2.0, 1.0, 1.0),
        patch_size=(4, 8, 8),
        parameters=count.per_domain[1],
        cases={"train": 2, "validation": 0, "test": 1},
        plan_hash=plan_hash(toy.TWO),
        is_trained=True,
    )
    assert found.domains[0].is_trained is False


def test_regions_and_ignore_label(tmp_path):
    regions = (Region("all", ("rim", "core")), Region("inner", ("core",)))
    two = dataclasses.replace(toy.TWO, regions=regions, ignore_label=9)
    loading.save_model(tmp_path, *toy.make_model((toy.ONE, two)))
    (found,) = describe_models(tmp_path)
    assert found.domains[0].regions == {}
    assert found.domains[0].ignore_label is None
    assert found.domains[1].regions == {"all": ("rim", "core"), "inner": ("core",)}
    assert found.domains[1].ignore_label == 9
    lines = description_table.to_text(found).splitlines()
    row = next(number for number, line in enumerate(lines) if "rim, core" in line)
    assert lines[row].startswith("Task92_Two")
    assert [line.strip() for line in lines[row + 1 : row + 4]] == [
        "region all: rim, core",
        "region inner: core",
        "ignore label 9",
    ]


def test_training(model):
    (found,) = describe_models(model)
    assert found.written_by.startswith(file_format.version())
    assert (source_commit() or "") in found.written_by
    assert found.settings["data_dir"] == "shards"
    assert found.settings["detach_focal_factor"] == "false"
    assert found.training == description.TrainingDescription(
        steps=30,
        epochs=3,
        finished=True,
        learning_rate=0.25,
        shared_variables=False,
        precision="mixed_float16",
        fold=2,
        weight_ema_decay=0.0,
        data_fingerprint="fedcba9876543210ff",
        best=description.BestDescription(
            step=20,
            epoch=2,
            measure="validation Dice",
            value=0.7,
            dice={"Task91_One/organ": 0.75, "Task92_Two/rim": 0.625},
        ),
    )


@pytest.mark.parametrize(
    ("flag", "words"), [("from", "adapted from"), ("init_from", "initialized from")]
)
def test_the_model_that_a_run_started_from(model, tmp_path, flag, words):
    folder = shutil.copytree(model, tmp_path / "model")
    (found,) = describe_models(folder)
    assert words not in description_table.to_text(found)
    (folder / "flags.txt").write_text(f"{FLAGS}--{flag}=the/other\n")
    (found,) = describe_models(folder)
    (row,) = [
        line
        for line in description_table.to_text(found).splitlines()
        if line.startswith(words)
    ]
    assert row.split() == [*words.split(), "the/other"]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("--region_loss_weight=0.5", 1), ("--region_loss_weight=0.0", 0), ("", 0)],
)
def test_regions_in_the_loss(model, tmp_path, flag, expected):
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "flags.txt").write_text(f"{FLAGS}{flag}\n")
    (found,) = describe_models(folder)
    text = description_table.to_text(found)
    assert text.count("region loss") == text.count("weight 0.5") == expected


@pytest.mark.parametrize(("decay", "expected"), [(0.99, 1), (0.0, 0), (None, 0)])
def test_averages_of_the_weights(tmp_path, decay, expected):
    """Also without the flags of the run; earlier versions did not record a decay."""
    spec, network = toy.make_model()
    invariants = {} if decay is None else {"weight_ema_decay": decay}
    checkpoints = Checkpoints(
        tmp_path, spec, network, {}, keep=2, invariants=invariants
    )
    checkpoints.save(RunState(step=3, schedule=ScheduleState(learning_rate=0.25)))
    (found,) = describe_models(tmp_path)
    assert found.training.weight_ema_decay == (decay or 0.0)
    text = description_table.to_text(found)
    assert text.count("moving averages, decay 0.99") == expected
    assert text.count("moving averages") == expected


def test_checkpoints(model):
    (found,) = describe_models(model)
    assert found.checkpoint == "step-30"
    assert [(c.name, c.is_best, c.is_damaged) for c in found.checkpoints] == [
        ("step-20", True, False),
        ("step-30", False, False),
    ]
    parts = list((model / "checkpoints").glob("step-20.*"))
    assert len(parts) == 2
    assert found.checkpoints[0].size_bytes == sum(p.stat().st_size for p in parts)


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_one_checkpoint(model, suffix):
    (found,) = describe_models(model / "checkpoints" / f"step-20{suffix}")
    assert (found.checkpoint, found.training.steps) == ("step-20", 20)


def test_a_checkpoint_elsewhere(model, tmp_path):
    for part in (model / "checkpoints").glob("step-20.*"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    (found,) = describe_models(tmp_path / "step-20")
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["step-20"]


def copy_of(model, folder):
    for path in model.rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(model)
            copy.parent.mkdir(exist_ok=True, parents=True)
            copy.write_bytes(path.read_bytes())
    return folder


def test_the_previous_one_if_the_newest_is_damaged(model, tmp_path, caplog):
    copy = copy_of(model, tmp_path)
    (copy / "checkpoints" / "step-30.index").write_bytes(b"")
    (found,) = describe_models(copy)
    assert found.checkpoint == "step-20"
    assert [checkpoint.is_damaged for checkpoint in found.checkpoints] == [False, True]
    assert "step-30: expected an undamaged checkpoint" in caplog.text
    with pytest.raises(InputError, match="step-30: expected an undamaged"):
        describe_models(copy / "checkpoints" / "step-30")


def test_while_a_training_removes_checkpoints(model, tmp_path, monkeypatch):
    copy = copy_of(model, tmp_path)
    list_checkpoints = checkpoint_paths.list_checkpoints
    newer = itertools.count(40, 10)

    def list_and_train_on(folder):
        """Adds step 40 before the first is read, and step 50 before sizes are read."""
        found = list_checkpoints(folder)
        step = next(newer)
        if step < 60:
            for path in folder.glob(f"{pathlib.Path(found[-1]).name}.*"):
                shutil.copy(path, folder / f"step-{step}{path.suffix}")
            checkpoint_paths.remove(found)
        return found

    monkeypatch.setattr(checkpoint_paths, "list_checkpoints", list_and_train_on)
    # Called once for `has_model`.
    (found,) = describe_models(copy)
    assert found.checkpoint == "step-50"
    monkeypatch.undo()
    checkpoint_paths.remove(list_checkpoints(copy / "checkpoints"))
    with pytest.raises(InputError, match="Received: a folder without a checkpoint"):
        describe_models(copy)


def test_a_checkpoint_is_removed_while_it_is_read(model, tmp_path, monkeypatch):
    copy = copy_of(model, tmp_path)
    path = copy / "checkpoints" / "step-30"

    def remove_and_read(path):
        checkpoint_paths.remove([str(path)])
        return CheckpointIndex(path)

    monkeypatch.setattr(describe_model, "CheckpointIndex", remove_and_read)
    with pytest.raises(InputError, match="step-30: .* Received: one that was removed"):
        describe_models(path)


def test_without_training_csv_and_flags_txt(model, tmp_path):
    copy = copy_of(model, tmp_path)
    (copy / "training.csv").unlink()
    (copy / "flags.txt").unlink()
    (found,) = describe_models(copy)
    assert (found.settings, found.training.best.epoch) == ({}, None)
    assert "epoch not recorded: validation Dice 0.7000" in description_table.to_text(
        found
    )


@pytest.mark.parametrize(("kind", "kernel"), [("full", 3), ("pointwise", 1)])
def test_the_last_decoder_kernel(tmp_path, kind, kernel):
    loading.save_model(tmp_path, *toy.make_model(second_up_conv=kind))
    (found,) = describe_models(tmp_path)
    text = " ".join(description_table.to_text(found).split())
    assert f"pools 1,0,1, last decoder kernel {kernel} patch" in text


def test_a_composed_model(tmp_path):
    loading.save_model(tmp_path, *toy.make_model())
    (found,) = describe_models(tmp_path)
    assert found.training is None
    assert found.domains[0].is_trained is None
    assert "none (composed or ported model)" in description_table.to_text(found)


@pytest.mark.parametrize("name", ["adapted", "composed", "parallel", "plain"])
def test_models_of_release_0_1_0(name):
    (found,) = describe_models(ARTEFACTS / name)
    spec = loading.load_spec(ARTEFACTS / name)
    network = network_without_values(
        [domain.num_modalities for domain in spec.plan.domains],
        [domain.num_classes for domain in spec.plan.domains],
        pools=spec.pools,
        base_channels=spec.base_channels,
        adapter=spec.adapter,
        second_up_conv=spec.second_up_conv,
    )
    count = count_all(network)
    assert (found.parameters, found.shared_parameters) == (count.total, count.shared)
    assert tuple(domain.parameters for domain in found.domains) == count.per_domain
    assert found.written_by is None
    assert "not recorded (release 0.1.0 or earlier)" in description_table.to_text(found)


def test_independent_models():
    found = describe_models(ARTEFACTS / "independent")
    assert [model.domains[0].name for model in found] == ["Task91_One", "Task92_Two"]


@pytest.mark.parametrize("suffix", ["", "plan.json", "no"])
def test_no_model(tmp_path, suffix):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        describe_models(tmp_path / suffix)
    received = {
        "": "a folder without a checkpoint",
        "plan.json": "a different kind of file",
        "no": "no such file or folder",
    }
    assert str(caught.value) == (
        f"{tmp_path / suffix}: expected a model written by `python -m "
        "u2net_tf.train`, one of its checkpoints, a model file (*.u2net), or the name "
        "of a model that comes with the package (hippocampus). "
        f"Received: {received[suffix]}"
    )


def test_json(model):
    found = describe_models(model)
    content = json.loads(description.to_json(found))
    as_lists = json.loads(json.dumps(dataclasses.asdict(found[0])))
    assert content == {"models": [as_lists]}


def test_text(model):
    (found,) = describe_models(model)
    lines = description_table.to_text(found).splitlines()
    rows = [" ".join(line.split()) for line in lines]
    one, two = (domain.parameters for domain in found.domains)
    for row in (
        f"{model}, step-30",
        "patch 8×8×8 (cubic resizing)",
        "training 30 steps, 3 epochs, learning rate 0.25; finished",
        "trained domains Task92_Two; all other variables frozen",
        "best step 20, epoch 2: validation Dice 0.7000",
        "fold 2",
        "precision mixed_float16",
        "data shards",
        "data fingerprint fedcba9876543210",
        "domain modalities spacing mm patch train val. test",
        "Task91_One CT 1×1×1 8×8×8 3 2 1",
        "Task92_Two T2, ADC 2×1×1 4×8×8 2 0 1",
        "domain parameters classes, with the Dice of the best checkpoint",
        f"Task91_One {one} organ 0.750",
        f"Task92_Two {two} rim 0.625, core (of test cases)",
    ):
        assert row in rows


def test_text_of_many_long_names_fits_into_100_columns(model):
    (found,) = describe_models(model)
    long = dataclasses.replace(
        found.domains[0],
        name="Task123_" + "TotalSegmentator" * 2,
        modalities=("T1 weighted", "T2 weighted", "FLAIR", "contrast 1,000"),
        classes=tuple(f"structure number {n}" for n in range(1_000, 1_030)),
        spacing_mm=(0.9766, 0.9766, 4.9999),
        patch_size=(128, 128, 128),
        cases={"train": 12_345, "validation": 1_234, "test": 1_234},
        parameters=123_456_789,
    )
    found = dataclasses.replace(found, model_dir="model", domains=(long,))
    lines = description_table.to_text(found).splitlines()
    assert max(map(len, lines)) <= 100
    assert " ".join(lines).count("structure") >= 30


def test_command_needs_no_tensorflow(model):
    with CommandServer() as server:
        text = server.run("u2net_tf.describe", model, watched=("tensorflow", "keras"))
        as_json = server.run("u2net_tf.describe", "--json", model)
    (found,) = describe_models(model)
    assert (text.returncode, text.stderr, text.imported) == (0, "", [])
    assert text.stdout == description_table.to_text(found) + "\n"
    assert as_json.stdout == description.to_json([found]) + "\n"
