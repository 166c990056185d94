"""An nnU-Net dataset with an ignore label and regions, from raw data to scores."""

import csv
import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import toy
from in_process import InProcess

from data_prep.config import ConversionConfig, PlanConfig
from data_prep.convert import convert_domains
from data_prep.plan.write_plan import write_plan
from data_prep.survey import survey_domains, survey_file
from data_prep.verify import verify_domain
from u2net_tf import files
from u2net_tf.config.evaluation import EvaluateConfig
from u2net_tf.config.training import AdaptConfig, TrainConfig
from u2net_tf.evaluation.evaluate_model import evaluate_model
from u2net_tf.models import description_table
from u2net_tf.models.build import build_network
from u2net_tf.models.describe_model import describe_models
from u2net_tf.models.loading import load_spec, save_model
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Region
from u2net_tf.plan.plan_file import load_plan, plan_to_json
from u2net_tf.shards.manifest import load_manifest
from u2net_tf.shards.reading import CaseShards
from u2net_tf.shards.records import decode
from u2net_tf.training import adaptation, runs

pytestmark = pytest.mark.usefixtures("plain_implementation_in_module")
NAME = "Dataset092_Two"
IGNORED = 9
CASES = (*toy.TWO.train, *toy.TWO.test)
LABELS = {"background": 0, "all": [2, 4, 7], "core": 2, "rim": [4, 7], "ignore": 9}
FAST = {
    "steps_per_epoch": 2,
    "max_epochs": 1,
    "validate_every_epochs": 1,
    "eval_cases": 1,
    "patch_size": None,
    "distribution": "none",
}


@pytest.fixture(scope="module")
def raw_dir(tiny_data, tmp_path_factory):
    """Every second slice of the scans is annotated."""
    folder = tmp_path_factory.mktemp("raw") / NAME
    source = tiny_data.raw_dir / toy.TWO.name
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case in CASES:
        image = nib.load(source / "imagesTr" / f"{case}.nii.gz")
        for channel in range(2):
            one = nib.Nifti1Image(image.get_fdata()[..., channel], image.affine)
            nib.save(one, folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
        labels = nib.load(source / "labelsTr" / f"{case}.nii.gz")
        array = np.asarray(labels.dataobj).copy()
        array[..., ::2] = IGNORED
        nib.save(
            nib.Nifti1Image(array, labels.affine),
            folder / "labelsTr" / f"{case}.nii.gz",
        )
    content = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": LABELS,
        "regions_class_order": [2, 4, 7],
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder.parent


def survey(raw_dir, folder):
    """Writes the survey of the dataset and returns it."""
    (facts,) = survey_domains.survey(
        survey_domains.find_domains(raw_dir, []),
        log=folder / "log",
        spacing_source="pixdim",
        num_workers=1,
        executor=InProcess(),
    )
    files.write_text(folder / "survey.json", survey_file.to_json([facts]))
    return facts


@pytest.fixture(scope="module")
def prepared(raw_dir, tmp_path_factory):
    """The survey, the plan and the folder of the shards."""
    folder = tmp_path_factory.mktemp("prepared")
    facts = survey(raw_dir, folder)
    settings = {
        "survey": str(folder),
        "output": str(folder / "plan.json"),
        "regions": (f"{NAME}:outside=4+7",),
        "max_patch_voxels": 16**3,
        "test_fraction": 0.3,
    }
    write_plan(PlanConfig.from_flat(settings))
    plan = load_plan(folder / "plan.json")
    data_dir = folder / "data"
    convert_domains.convert(
        plan, ConversionConfig(data_dir=str(data_dir)), executor=InProcess()
    )
    return facts, plan, data_dir


def test_the_survey_tells_ignored_voxels_from_classes(prepared):
    facts, _, _ = prepared
    assert facts.faults == ()
    assert "'regions_class_order' is not used" in facts.warnings[0]
    assert "no case contains label 4 (label 4)" in facts.warnings[1]
    assert facts.labels == {0: "background", 2: "core", 4: "label 4", 7: "label 7"}
    assert facts.ignore_label == IGNORED
    assert facts.regions == {"all": (2, 4, 7), "rim": (4, 7)}
    for case in facts.cases:
        total = np.prod(case.shape)
        assert case.label_voxels[str(IGNORED)] == total / 2
        assert set(case.component_shares) == {"2", "7", "foreground"}


def test_the_plan_has_both(prepared):
    _, plan, _ = prepared
    (domain,) = plan.domains
    assert [label.values for label in domain.labels] == [(0,), (2,), (4,), (7,)]
    assert (domain.ignore_label, domain.ignore_index) == (IGNORED, 4)
    assert domain.regions == (
        Region("all", ("core", "label 4", "label 7")),
        Region("rim", ("label 4", "label 7")),
        Region("outside", ("label 4", "label 7")),
    )


def test_shards_keep_ignored_voxels(prepared):
    _, plan, data_dir = prepared
    (domain,) = plan.domains
    manifest = load_manifest(data_dir, NAME)
    shards = CaseShards(str(data_dir), domain, manifest, domain.train)
    for entry, (_, serialized) in zip(shards.entries, shards.records(), strict=False):
        record = decode(serialized.numpy())
        counts = np.bincount(record.labels.ravel(), minlength=5)
        assert counts[4] > 0.3 * record.labels.size
        assert record.label_counts.tolist() == entry.label_voxels == counts.tolist()
        sampled = record.labels[tuple(record.coordinates.T)]
        # Background, too, as patches are drawn around annotated voxels only.
        assert set(sampled.tolist()) == {0, 1, 3}
        assert record.coordinate_counts[4] == 0
    assert verify_domain(data_dir, domain, manifest) == []


@pytest.fixture(scope="module")
def model_dir(prepared, tmp_path_factory):
    _, _, data_dir = prepared
    folder = tmp_path_factory.mktemp("trained") / "model"
    values = {
        **{"model_dir": str(folder), "data_dir": str(data_dir), "base_channels": 2},
        **FAST,
    }
    # Without the ignore label, the loss of these labels is an error.
    with toy.eager_steps():
        runs.train(TrainConfig.from_flat(values))
    return folder


def test_training_logs_the_dice_of_regions(model_dir):
    with (model_dir / "training.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    names = ["core", "label 4", "label 7", "all", "rim", "outside"]
    assert [name for name in row if name.startswith("dice/")] == [
        f"dice/{NAME}/{name}" for name in names
    ]
    # The two regions have the same classes.
    assert row[f"dice/{NAME}/rim"] == row[f"dice/{NAME}/outside"] != ""
    text = description_table.to_text(describe_models(model_dir)[0])
    assert f"region rim {float(row[f'dice/{NAME}/rim']):.3f}: label 4, label 7" in text


@pytest.mark.slow
def test_regions_can_enter_the_loss(prepared, tmp_path, caplog):
    """The first loss is linear in their weight; the patches are the same."""
    _, _, data_dir = prepared
    caplog.set_level("INFO", logger="absl")
    first = []
    for weight in (0.0, 0.5, 1.0):
        folder = tmp_path / str(weight)
        values = {
            **{"model_dir": str(folder), "data_dir": str(data_dir), **FAST},
            **{"base_channels": 2, "steps_per_epoch": 1},
            "region_loss_weight": weight,
        }
        with toy.eager_steps():
            runs.train(TrainConfig.from_flat(values))
        with (folder / "training.csv").open(newline="") as file:
            first.append(float(next(csv.DictReader(file))["loss"]))
    assert first[1] - first[0] > 0.1
    assert first[2] - first[0] == pytest.approx(2 * (first[1] - first[0]), rel=1e-4)
    assert (
        f"regions in the loss, with weight 0.5: {NAME}/all, {NAME}/rim, {NAME}/outside"
        in caplog.text
    )


def test_scores_cover_annotated_voxels_and_regions(
    model_dir, prepared, tmp_path, monkeypatch
):
    _, plan, _ = prepared
    (domain,) = plan.domains
    assert load_spec(model_dir).plan == plan
    values = {"model_dir": (str(model_dir),), "surface_tolerance_mm": 1.0}
    found = evaluate_model(
        EvaluateConfig.from_flat({**values, "output_dir": str(tmp_path)})
    )
    assert [row.label for row in found.rows] == ["core", "label 4", "label 7"]
    assert [row.label for row in found.regions] == ["all", "rim", "outside"]
    (case,) = domain.test
    label_maps = (
        tmp_path / "predictions" / NAME / f"{case}.nii.gz",
        f"{domain.raw_dir}/labelsTr/{case}.nii.gz",
    )
    prediction, reference = (np.asarray(nib.load(p).dataobj) for p in label_maps)
    assert IGNORED not in prediction
    for row in (*found.rows, *found.regions):
        members = {"core": [2], "label 4": [4], "label 7": [7], "all": [2, 4, 7]}
        values = members.get(row.label, [4, 7])
        one, other = (
            np.isin(array, values)[reference != IGNORED]
            for array in (reference, prediction)
        )
        size = one.sum() + other.sum()
        dice = 2 * (one & other).sum() / size if size else np.nan
        np.testing.assert_allclose(row.mean, dice)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["label"] for row in summary["regions"]] == ["all", "rim", "outside"]
    assert all(row["surface_dice"] is not None for row in summary["regions"])


def test_regions_of_a_plan_are_scored_with_an_older_model(
    model_dir, prepared, tmp_path
):
    _, plan, _ = prepared
    (domain,) = plan.domains
    other = dataclasses.replace(domain, regions=(Region("new", ("core", "label 7")),))
    (tmp_path / "plan.json").write_text(plan_to_json(Plan((other,))))
    values = {"model_dir": (str(model_dir),), "output_dir": str(tmp_path / "scores")}
    evaluate_model(EvaluateConfig.from_flat(values))
    found = evaluate_model(
        EvaluateConfig.from_flat({**values, "plan": str(tmp_path / "plan.json")})
    )
    assert [row.label for row in found.regions] == ["new"]


def test_the_domain_can_be_added_to_a_model(prepared, tmp_path):
    _, plan, data_dir = prepared
    network_spec = ModelSpec(
        plan=Plan((toy.ONE,)), pools=plan.domains[0].pools, base_channels=2
    )
    save_model(str(tmp_path / "parent"), network_spec, build_network(network_spec))
    values = {
        **{"from_": str(tmp_path / "parent"), "domain": NAME},
        **{"data_dir": str(data_dir), "model_dir": str(tmp_path / "child"), **FAST},
    }
    values.pop("patch_size")
    with toy.eager_steps():
        adaptation.adapt(AdaptConfig.from_flat(values))
    added = load_spec(tmp_path / "child").plan.domains[1]
    assert (added.ignore_index, len(added.regions)) == (4, 3)


def test_a_case_without_annotation_is_left_out(raw_dir, tmp_path):
    moved = shutil.copytree(raw_dir, tmp_path / "raw")
    path = moved / NAME / "labelsTr" / f"{CASES[0]}.nii.gz"
    labels = nib.load(path)
    nib.save(
        nib.Nifti1Image(np.full(labels.shape, IGNORED, np.uint8), labels.affine), path
    )
    facts = survey(moved, tmp_path)
    assert [fault.kind for fault in facts.faults] == ["unannotated", "empty label"]
    assert f"Received: only the ignore label, {IGNORED}" in facts.faults[0].text
    settings = {
        "survey": str(tmp_path),
        "output": str(tmp_path / "plan.json"),
        "exclude_faulty": True,
        "test_fraction": 0.0,
    }
    write_plan(PlanConfig.from_flat(settings))
    (domain,) = load_plan(tmp_path / "plan.json").domains
    assert domain.train == CASES[1:]
