"""Scans with every kind of fault; the plan command on surveys made in memory."""

import nibabel as nib
import numpy as np
import pytest
from command_server import CommandServer, arguments_of, checked
from invented_scans import SHAPE, draw_image, make_labels
from invented_surveys import make_domain

from data_prep.survey import survey_file
from u2net_tf.plan.plan_file import load_plan


@pytest.fixture(scope="session")
def server():
    """Runs commands of `data_prep` without starting an interpreter for each."""
    preload = (
        "data_prep.convert.convert_domains",
        "data_prep.plan.plan_domain",
        "data_prep.survey.survey_domains",
    )
    with CommandServer(*preload) as server:
        yield server


@pytest.fixture(scope="session")
def run_light(server):
    """Like `run_command`, but by the server. Every command also has a test without."""

    def run(module, status=0, **flags):
        return checked(server.run(module, *arguments_of(flags)), status)

    return run


@pytest.fixture
def run_plan(tmp_path):
    """Returns a function that runs the plan command on surveys with `run`."""

    def run_plan(run, *domains, **flags):
        text = survey_file.to_json(domains or [make_domain()])
        (tmp_path / "survey.json").write_text(text)
        flags = {"survey": tmp_path, "output": tmp_path / "plan.json", **flags}
        return run("data_prep.plan", **flags)

    return run_plan


@pytest.fixture
def plan(tmp_path, run_plan, run_light):
    """Returns a function that plans surveys through the command line."""

    def run(*domains, **flags):
        run.done = run_plan(run_light, *domains, **flags)
        return load_plan(tmp_path / "plan.json")

    return run


@pytest.fixture
def fail(tmp_path, run_plan, run_light):
    """Like `plan`, for plans that must fail and write nothing; returns the message."""

    def run(*domains, **flags):
        done = run_plan(run_light, *domains, status=1, **flags)
        assert not (tmp_path / "plan.json").exists()
        return done.stderr

    return run


@pytest.fixture(scope="session")
def faulty(tmp_path_factory, write_nifti, write_dataset):
    """A domain with a case per fault, and a valid domain with two modalities."""
    raw_dir = tmp_path_factory.mktemp("raw")
    folder = raw_dir / "Faulty"
    images, labels = folder / "imagesTr", folder / "labelsTr"

    def write(case, image=None, label=None, **keywords):
        seed = sum(map(ord, case))
        image = draw_image(seed) if image is None else image
        label = make_labels() if label is None else label
        write_nifti(images / f"{case}.nii.gz", image, **keywords)
        write_nifti(labels / f"{case}.nii.gz", label, **keywords)

    write("good", spacing_mm=(3, 1, 2))
    write("no_label")
    (labels / "no_label.nii.gz").unlink()
    write("no_image")
    (images / "no_image.nii.gz").unlink()
    write("other_shape", label=make_labels()[:-1])
    write("other_grid")
    write_nifti(
        labels / "other_grid.nii.gz", make_labels(), affine=np.diag([2, 2, 2, 1])
    )
    unknown = make_labels()
    unknown[0, 0, :3] = 254
    write("unknown_value", label=unknown)
    nan = draw_image(1)
    nan[2, 2, 2], nan[3, 3, 3] = np.nan, np.inf
    write("nan", image=nan)
    write("empty", label=np.zeros(SHAPE, np.uint8))
    write("fractions", label=make_labels() * np.float32(0.5))
    write("cut_short")
    content = (images / "cut_short.nii.gz").read_bytes()
    (images / "cut_short.nii.gz").write_bytes(content[: len(content) // 2])
    write("two_modalities", image=np.stack([draw_image(2), draw_image(3)]))
    write_nifti(labels / "two_modalities.nii.gz", make_labels())
    write("zero", image=np.zeros(SHAPE, np.float32))
    write("constant", image=np.full(SHAPE, 7, np.float32))
    write("flat", image=draw_image(4)[0], label=make_labels()[0])
    write("twice")
    write("the_copy", image=draw_image(sum(map(ord, "good"))), spacing_mm=(3, 1, 2))
    contradictory = nib.Nifti1Image(draw_image(5).T, np.diag([1, 1, 5, 1]))
    contradictory.header.set_zooms((1.64, 1.64, 5))
    contradictory.header["sform_code"] = 1
    nib.save(contradictory, images / "sform.nii.gz")
    nib.save(
        nib.Nifti1Image(make_labels().T, contradictory.affine), labels / "sform.nii.gz"
    )
    names = [path.name[:-7] for path in sorted(labels.iterdir())] + ["no_label"]
    write_dataset(folder, [*names, "twice"], labels=("background", "organ", "never"))

    two = write_dataset(raw_dir / "Two", ["a", "b"], modalities=("T2", "ADC"))
    for case, depth in (("a", 6), ("b", 4)):
        image = np.stack([draw_image(6)[:depth], draw_image(7)[:depth] + depth])
        write_nifti(two / "imagesTr" / f"{case}.nii.gz", image, (1, 1, 1))
        label = make_labels()[:depth]
        write_nifti(two / "labelsTr" / f"{case}.nii.gz", label, (1, 1, 1))
    return raw_dir
