"""From real scans to label maps that other programs can open."""

import csv

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

DOMAINS = ("Task04_Hippocampus", "Task12_CineHeart", "Task15_BrainTumour")


@pytest.fixture(scope="module")
def trained(few_real_cases, tmp_path_factory, run_command):
    """A small network after a few steps on real scans of three domains."""
    work = tmp_path_factory.mktemp("trained")
    run_command(
        "data_prep.survey",
        raw_dir=few_real_cases,
        domains=",".join(DOMAINS),
        output_dir=work,
    )
    run_command("data_prep.plan", survey=work, output=work / "plan.json")
    run_command("data_prep.convert", plan=work / "plan.json", data_dir=work / "data")
    run_command("data_prep.verify", data_dir=work / "data")
    run_command(
        "u2net_tf.train",
        flagfile="u2net_tf/flagfiles/universal.flags",
        data_dir=work / "data",
        model_dir=work / "model",
        base_channels=2,
        pools="2,2,2",
        patch_size="16,16,16",
        steps_per_epoch=12,
        max_epochs=1,
        eval_every=1,
        eval_cases=1,
    )
    return work


def test_training_watches_every_domain(trained):
    with (trained / "model" / "training.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    for name in DOMAINS:
        assert 0 < float(row[f"loss/{name}"]) < 5
    # One case per domain, so the other of each pair is the test case.
    assert any(row[column] for column in row if column.startswith("dice/Task04"))


def test_evaluation_covers_the_test_cases(trained, run_command):
    done = run_command("u2net_tf.evaluate", model_dir=trained / "model")
    assert "Anterior" in done.stdout
    assert "enhancing" in done.stdout
    with (trained / "model" / "test" / "dice.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["domain"] for row in rows} == set(DOMAINS)
    assert all(row["dice"] == "" or 0 <= float(row["dice"]) <= 1 for row in rows)


@pytest.mark.parametrize(
    ("domain", "case"),
    [
        ("Task04_Hippocampus", "hippocampus_001"),
        ("Task15_BrainTumour", "brats_2013_0001_1"),
    ],
)
def test_a_prediction_lies_on_its_image(
    trained, few_real_cases, tmp_path, run_command, domain, case
):
    source = few_real_cases / domain / "imagesTr" / f"{case}.nii.gz"
    run_command(
        "u2net_tf.predict",
        model_dir=trained / "model",
        domain=domain,
        input=source,
        output=tmp_path,
    )
    image, labels = nib.load(source), nib.load(tmp_path / f"{case}.nii.gz")
    assert labels.shape == image.shape[:3]
    np.testing.assert_array_equal(labels.affine, image.affine)
    for code in ("sform_code", "qform_code"):
        assert labels.header[code] == image.header[code]
    assert np.issubdtype(labels.get_data_dtype(), np.integer)
    first = sitk.ReadImage(str(source))
    if first.GetDimension() == 4:
        first = first[..., 0]
    second = sitk.ReadImage(str(tmp_path / f"{case}.nii.gz"))
    assert second.GetSize() == first.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(
            getattr(second, name)(), getattr(first, name)(), rtol=1e-6, atol=1e-6
        )
