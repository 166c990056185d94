import numpy as np
import pytest

from data_prep.survey import survey_file
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.volumes import nifti

# Domain -> modalities, number of classes and origin of the network settings.
DOMAINS = {
    "Task04_Hippocampus": (("MRI",), 3, "preset"),
    "Task09_Spleen": (("CT",), 2, "preset"),
    "Task11_LeftAtrium": (("MRI",), 2, "rule"),
    "Task12_CineHeart": (("cine-MRI",), 4, "rule"),
    "Task13_ProstateT2": (("T2",), 2, "rule"),
    "Task14_HeadNeckCT": (("CT",), 5, "rule"),
    "Task15_BrainTumour": (("FLAIR", "T1gd"), 5, "rule"),
}


@pytest.fixture(scope="module")
def work(few_real_cases, tmp_path_factory, run_light):
    work = tmp_path_factory.mktemp("work")
    run_light("data_prep.survey", raw_dir=few_real_cases, output_dir=work)
    output = work / "plan.json"
    run_light("data_prep.plan", survey=work, output=output, split_by=r"(patient\d+)_")
    return work


def test_survey_finds_no_faults(work):
    domains = survey_file.load_survey(work)
    assert [domain.name for domain in domains] == list(DOMAINS)
    for domain in domains:
        assert domain.faults == ()
        assert domain.modalities == DOMAINS[domain.name][0]
        for case in domain.cases:
            assert len(case.percentiles) == len(domain.modalities)
            assert sum(case.label_voxels.values()) == np.prod(case.shape)


def test_survey_agrees_with_the_reader(work):
    for domain in survey_file.load_survey(work):
        case = domain.cases[0]
        image = nifti.load_image(case.image_path)
        assert image.data.shape[1:] == case.shape
        np.testing.assert_allclose(image.spacing_mm, case.spacing_mm, rtol=1e-5)


def test_plan_is_plausible(work):
    plan = load_plan(work / "plan.json")
    surveyed = {domain.name: domain for domain in survey_file.load_survey(work)}
    for domain in plan.domains:
        assert domain.num_classes == DOMAINS[domain.name][1]
        assert domain.train
        cases = surveyed[domain.name].cases
        assert len(domain.train) + len(domain.test) == len(cases)
        spacings = [case.spacing_mm for case in cases]
        np.testing.assert_allclose(domain.spacing_mm, np.median(spacings, axis=0))
        if DOMAINS[domain.name][2] == "rule":
            assert np.all(domain.patch_size <= np.multiply(domain.median_shape, 1.25))


def test_a_patient_is_not_in_two_splits(work):
    heart = load_plan(work / "plan.json").domains[3]
    # Both cases are frames of one patient, which leaves none for testing.
    assert len(heart.train) == 2
    assert heart.test == ()


def test_left_and_right_are_not_mirrored(work):
    plan = load_plan(work / "plan.json")
    mirrored = {domain.name: domain.mirror_axes for domain in plan.domains}
    assert mirrored["Task14_HeadNeckCT"] == ()
    assert mirrored["Task04_Hippocampus"] == ("x",)
