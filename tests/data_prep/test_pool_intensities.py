"""Statistics of the foreground of all training cases in a plan."""

import dataclasses

import pytest
from invented_surveys import make_case, make_domain, plan_one

from data_prep.survey import survey_file
from data_prep.survey.examine_case import Fault
from u2net_tf.errors import InputError
from u2net_tf.plan.preprocessing import IntensityStatistics, Preprocessing

BONE = IntensityStatistics(low=100, high=900, mean=400, std=30)
WATER = IntensityStatistics(low=-20, high=60, mean=10, std=40)


def ct(modalities=("CT",), foreground=None, cases=10, name="Task99_Knee"):
    """Returns a domain in which a case has these statistics of the foreground."""
    domain = make_domain(name, modalities=modalities)
    foreground = foreground or [(BONE,) * len(modalities)] * cases
    cases = tuple(
        make_case(name, f"c{i}", foreground_intensities=statistics)
        for i, statistics in enumerate(foreground)
    )
    return dataclasses.replace(domain, cases=cases)


def plan_statistics(facts, **choices):
    choices = {"normalization": "auto", "test_fraction": 0.0, **choices}
    domain, notes = plan_one(facts, **choices)
    return domain.preprocessing.intensity_statistics, notes


def test_statistics_are_medians_over_the_cases():
    """A case in other units changes nothing."""
    third = IntensityStatistics(low=50, high=700, mean=300, std=50)
    outlier = IntensityStatistics(low=5000, high=9000, mean=7000, std=900)
    foreground = [(one,) for one in (BONE, WATER, third, third, outlier)]
    (found,), _ = plan_statistics(ct(foreground=foreground))
    assert found == IntensityStatistics(low=50, high=700, mean=300, std=50)


def test_statistics_far_from_zero_keep_their_digits():
    far = IntensityStatistics(low=8e6 + 1, high=8e6 + 4, mean=8e6 + 2.25, std=0.75)
    (found,), notes = plan_statistics(ct(foreground=[(far,)]))
    assert found == far
    assert "clipped to 8000001 to 8000004" in notes


def test_only_cases_with_foreground_count():
    (found,), _ = plan_statistics(ct(foreground=[(BONE,), (), (BONE,)]))
    assert found == BONE


def test_test_cases_do_not_count():
    facts = ct(foreground=[(BONE,)] * 10)
    domain, _ = plan_one(facts, test_fraction=0.3)
    cases = tuple(
        dataclasses.replace(case, foreground_intensities=(WATER,))
        if case.case in domain.test
        else case
        for case in facts.cases
    )
    changed = dataclasses.replace(facts, cases=cases)
    (found,), _ = plan_statistics(changed, test_fraction=0.3)
    assert found == BONE


@pytest.mark.parametrize(
    ("normalization", "modalities", "fixed"),
    [
        ("auto", ("CT",), [True]),
        ("auto", ("ct ", "PET"), [True, False]),
        ("auto", ("CTA",), None),
        ("auto", ("MRI",), None),
        ("scan", ("CT",), None),
        ("dataset", ("MRI", "CT"), [True, True]),
    ],
)
def test_modalities(normalization, modalities, fixed):
    found, notes = plan_statistics(ct(modalities), normalization=normalization)
    assert (found and [one is not None for one in found]) == fixed
    note = "is clipped to 100 to 900 and standardized with mean 400 and standard"
    assert notes.count(note) == (fixed or []).count(True)


@pytest.mark.parametrize(
    ("modality", "choices", "noted"),
    [
        ("CTA", {}, True),
        ("low-dose CT", {}, True),
        ("CBCT", {}, True),
        ("CT", {}, False),
        ("SPECT", {}, False),
        ("OCT", {}, False),
        ("PET tomography", {}, False),
        ("intact", {}, False),
        ("CTA", {"normalization": "scan"}, False),
        ("CTA", {"preprocessing": Preprocessing(intensity_floor=-1024.0)}, False),
    ],
)
def test_names_that_may_mean_ct_are_noted(modality, choices, noted):
    _, notes = plan_statistics(ct((modality,)), **choices)
    note = f"{modality!r} may be CT, but only modalities named CT are standardized with"
    assert (note in notes) == noted


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_percentiles": (1.0, 99.0)},
        {"intensity_floor": -1024.0},
        {"statistics_over": "positive"},
        {"clip_percentiles": (0.0, 99.0), "intensity_floor": 0.0},
    ],
)
def test_settings_of_a_scan_apply_when_they_are_set(changes):
    preprocessing = Preprocessing(**changes)
    found, notes = plan_statistics(ct(("CT", "PET")), preprocessing=preprocessing)
    assert found is None
    names = ", ".join(f"`{name}`" for name in changes)
    note = f"CT is standardized with statistics of each scan because of {names}"
    assert notes.count("standardized") == notes.count(note) == 1
    scan = {"normalization": "scan", "preprocessing": preprocessing}
    assert "standardized" not in plan_statistics(ct(), **scan)[1]


REASONS = [
    (
        {"foreground": [(BONE,), None, (BONE,)]},
        {},
        "a survey that measured the intensities of the foreground. Received: none for "
        "c1, surveyed by an older version. Repeat",
    ),
    (
        {"foreground": [(), ()]},
        {},
        "cases with foreground that are not test cases, or scan. Received: none",
    ),
    (
        {"foreground": [(IntensityStatistics(low=7, high=7, mean=7, std=0),)] * 2},
        {},
        "a foreground of CT with low < high that differ in float32, ",
    ),
    (
        {},
        {"merges": {"Task99_Knee": {"background": (0, 2)}}},
        "scan, since the survey measured the foreground with values that are merged "
        "with the background. Received: 2 in the background",
    ),
]


@pytest.mark.parametrize(("domain", "choices", "reason"), REASONS)
def test_without_usable_statistics(domain, choices, reason):
    facts = ct(**domain)
    with pytest.raises(InputError) as caught:
        plan_statistics(facts, normalization="dataset", **choices)
    where = "Task99_Knee: `intensity_normalization`: expected "
    assert str(caught.value).startswith(where + reason)
    note = f"each CT is standardized with its own statistics: expected {reason}"
    for normalization, has_note in (("auto", True), ("scan", False)):
        found, notes = plan_statistics(facts, normalization=normalization, **choices)
        assert found is None
        assert (note in notes) == has_note


@pytest.mark.parametrize(("normalization", "is_usable"), [("auto", 1), ("scan", 0)])
def test_contrast_between_percentiles_does_not_matter(normalization, is_usable):
    """A CT may consist of air to more than 98 %."""
    facts = ct()
    fault = Fault("contrast", "/raw/c1.nii.gz", "constant between percentiles")
    bad = dataclasses.replace(facts.cases[1], faults=(fault,))
    facts = dataclasses.replace(facts, cases=(facts.cases[0], bad))
    if is_usable:
        domain, _ = plan_one(facts, normalization=normalization, test_fraction=0.0)
        assert domain.train == ("c0", "c1")
    else:
        with pytest.raises(InputError, match="1 of 2 with faults"):
            plan_one(facts, normalization=normalization)


def test_contrast_matters_where_statistics_are_missing():
    facts = ct(foreground=[()] * 3)
    fault = Fault("contrast", "/raw/c1.nii.gz", "constant between percentiles")
    bad = dataclasses.replace(facts.cases[1], faults=(fault,))
    facts = dataclasses.replace(facts, cases=(facts.cases[0], bad, facts.cases[2]))
    with pytest.raises(InputError, match="1 of 3 with faults"):
        plan_one(facts, test_fraction=0.0)
    domain, notes = plan_one(facts, test_fraction=0.0, exclude_faulty=True)
    assert domain.train == ("c0", "c2")
    assert "left out c1: /raw/c1.nii.gz" in notes
    assert notes.count("each CT is standardized with its own statistics: expected") == 1


def test_the_number_of_modalities_is_checked_in_a_survey():
    bad = survey_file.to_json([ct()]).replace(
        '"modalities": ["CT"]', '"modalities": ["CT", "PET"]'
    )
    with pytest.raises(
        InputError, match="c0: foreground_intensities: expected one entry per modality"
    ):
        survey_file.SURVEY.from_text(bad, "survey.json")


class TestCommand:
    def test_flag(self, plan):
        (domain,) = plan(ct(), intensity_normalization="scan").domains
        assert domain.preprocessing == Preprocessing()
        (domain,) = plan(ct(), overwrite=True).domains
        assert domain.preprocessing.intensity_statistics == (BONE,)
        assert "Knee: CT is clipped to 100 to 900" in plan.done.stdout

    def test_dataset_contradicts_settings_of_a_scan(self, fail):
        flags = {"intensity_normalization": "dataset", "clip_percentiles": "1,99"}
        assert (
            "--intensity_normalization: expected scan or auto, since "
            "--clip_percentiles is set. Received: dataset"
        ) in fail(ct(), **flags)
