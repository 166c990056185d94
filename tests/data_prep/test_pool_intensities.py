"""Statistics of the foreground of all training cases in a plan."""

import dataclasses

import numpy as np
import pytest
from invented_surveys import make_case, make_domain, plan_one

from data_prep.survey import survey_file
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


def test_cases_have_equal_weight():
    """Medians of the limits; mean and variance of a mixture."""
    third = dataclasses.replace(BONE, low=50)
    (found,), _ = plan_statistics(ct(foreground=[(BONE,), (WATER,), (third,)]))
    assert (found.low, found.high) == (50, 900)
    rng = np.random.default_rng(0)
    samples = [rng.normal(s.mean, s.std, 400_000) for s in (BONE, WATER, third)]
    assert found.mean == pytest.approx(np.concatenate(samples).mean(), rel=1e-2)
    assert found.std == pytest.approx(np.concatenate(samples).std(), rel=1e-2)


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
        ("auto", ("ct", "PET"), [True, False]),
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
    "changes",
    [
        {"clip_percentiles": (1.0, 99.0)},
        {"intensity_floor": -1024.0},
        {"statistics_over": "positive"},
    ],
)
def test_settings_of_a_scan_apply_when_they_are_set(changes):
    found, _ = plan_statistics(ct(), preprocessing=Preprocessing(**changes))
    assert found is None


def test_a_survey_that_did_not_measure_the_foreground():
    facts = ct(foreground=[(BONE,), None, (BONE,)])
    with pytest.raises(
        InputError,
        match="Task99_Knee: expected a survey that measured the intensities of the "
        "foreground. Received: none for c1. Repeat `python -m data_prep.survey`",
    ):
        plan_statistics(facts, normalization="dataset")
    note = "each CT is standardized with its own mean, since the survey is of a version"
    for normalization, has_note in (("auto", True), ("scan", False)):
        found, notes = plan_statistics(facts, normalization=normalization)
        assert found is None
        assert (note in notes) == has_note


@pytest.mark.parametrize(
    ("foreground", "message"),
    [
        ([(), ()], "training cases with voxels of a class other than the background"),
        (
            [(IntensityStatistics(low=7, high=7, mean=7, std=0),)] * 2,
            "modality 'CT': expected intensities of the foreground that differ. "
            "Received: 7 to 7",
        ),
    ],
)
def test_a_foreground_without_statistics(foreground, message):
    with pytest.raises(InputError, match=message):
        plan_statistics(ct(foreground=foreground))


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
        assert "CT is clipped to 100 to 900" in plan.done.stdout

    def test_dataset_contradicts_settings_of_a_scan(self, fail):
        flags = {"intensity_normalization": "dataset", "clip_percentiles": "1,99"}
        assert (
            "--intensity_normalization: expected scan or auto, since "
            "--clip_percentiles is set. Received: dataset"
        ) in fail(ct(), **flags)
