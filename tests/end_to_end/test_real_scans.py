"""From real scans to label maps that other programs can open."""

import csv

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from command_server import arguments_of
from command_session import session

# One and two modalities.
QUICK = ("Task04_Hippocampus", "Task15_BrainTumour")
MORE = (*QUICK, "Task12_CineHeart")
VALIDATED = {"validate_every_epochs": 1, "eval_cases": 1, "steps_per_epoch": 12}
# Without steps that take seconds per domain: validation, and tracing of spatial
# augmentation, which `test_settings_are_read.py` tests.
BARE = {f"{part}_probability": 0 for part in ("elastic", "rotation", "scaling")}
BARE |= {"validate_every_epochs": 0, "steps_per_epoch": 4}


@pytest.fixture(
    scope="module", params=[QUICK, pytest.param(MORE, marks=pytest.mark.slow)], ids=len
)
def domains(request):
    """Domains that the network is trained on."""
    return request.param


@pytest.fixture(scope="module")
def run(domains, run_command):
    """Returns a function that runs a command and returns its output.

    The quick variant runs eager steps, because XLA takes seconds per domain, in
    processes that have already imported TensorFlow.
    """

    def quickly(module, **flags):
        (result,) = session(
            module, {0: arguments_of(flags)}, execution="eager"
        ).values()
        assert result["status"] == 0, result
        return result["stdout"]

    def as_users_do(module, **flags):
        return run_command(module, **flags).stdout

    return quickly if domains == QUICK else as_users_do


@pytest.fixture(scope="module")
def trained(domains, few_real_cases, tmp_path_factory, run):
    """A small network after a few steps on real scans."""
    work = tmp_path_factory.mktemp("trained")
    # Every worker has to import its packages.
    workers = {"num_workers": 1} if domains == QUICK else {}
    run(
        "data_prep.survey",
        raw_dir=few_real_cases,
        domains=",".join(domains),
        output_dir=work,
        **workers,
    )
    run("data_prep.plan", survey=work, output=work / "plan.json")
    run(
        "data_prep.convert",
        plan=work / "plan.json",
        data_dir=work / "data",
        **workers,
    )
    run("data_prep.verify", data_dir=work / "data")
    run(
        "u2net_tf.train",
        flagfile="u2net_tf/flagfiles/universal.flags",
        data_dir=work / "data",
        model_dir=work / "model",
        base_channels=2,
        pools="1,1,1",
        patch_size="16,16,16",
        max_epochs=1,
        **(BARE if domains == QUICK else VALIDATED),
    )
    return work


def test_training_logs_every_domain(trained, domains):
    with (trained / "model" / "training.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    for name in domains:
        assert 0 < float(row[f"loss/{name}"]) < 5
    # Each domain has one training and one test case.
    scored = [row[column] for column in row if column.startswith("dice/Task04")]
    assert any(scored) == (domains != QUICK)


def assert_same_geometry(path, source):
    """Checks shape and geometry of a label map with nibabel and ITK."""
    image, labels = nib.load(source), nib.load(path)
    assert labels.shape == image.shape[:3]
    np.testing.assert_array_equal(labels.affine, image.affine)
    for code in ("sform_code", "qform_code"):
        assert labels.header[code] == image.header[code]
    assert np.issubdtype(labels.get_data_dtype(), np.integer)
    first = sitk.ReadImage(str(source))
    if first.GetDimension() == 4:
        first = first[..., 0]
    second = sitk.ReadImage(str(path))
    assert second.GetSize() == first.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(
            getattr(second, name)(), getattr(first, name)(), rtol=1e-6, atol=1e-6
        )


def test_evaluation_covers_the_test_cases(trained, few_real_cases, domains, run):
    # An overlap of one half means eight times as many windows.
    windows = {"overlap": 0} if domains == QUICK else {}
    printed = run("u2net_tf.evaluate", model_dir=trained / "model", **windows)
    assert "Anterior" in printed
    assert "enhancing" in printed
    folder = trained / "model" / "test"
    with (folder / "dice.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["domain"] for row in rows} == set(domains)
    assert all(row["dice"] == "" or 0 <= float(row["dice"]) <= 1 for row in rows)
    for domain, case in {(row["domain"], row["case"]) for row in rows}:
        file = f"{case}.nii.gz"
        source = few_real_cases / domain / "imagesTr" / file
        assert_same_geometry(folder / "predictions" / domain / file, source)


# The default run checks label maps of the evaluation, written by the same code.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("domain", "case"),
    [
        ("Task04_Hippocampus", "hippocampus_001"),
        ("Task15_BrainTumour", "brats_2013_0001_1"),
    ],
)
def test_a_prediction_has_the_geometry_of_its_image(
    trained, few_real_cases, run, domain, case
):
    source = few_real_cases / domain / "imagesTr" / f"{case}.nii.gz"
    run(
        "u2net_tf.predict",
        model_dir=trained / "model",
        domain=domain,
        input=source,
        output=trained / "predictions",
    )
    assert_same_geometry(trained / "predictions" / f"{case}.nii.gz", source)
