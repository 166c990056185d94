"""Ranges of spacing, extent and intensity of the surveyed scans in a plan."""

import dataclasses
import json

from invented_surveys import make_case, make_domain, plan_one

from data_prep.config import PlanConfig
from data_prep.plan.measure_ranges import measure_ranges
from data_prep.plan.write_plan import write_plan
from data_prep.survey import survey_file
from u2net_tf.plan.plan_file import load_plan


def measured(name, shape, spacing_mm, *percentiles):
    return make_case(
        "Task99_Knee",
        name,
        shape=shape,
        spacing_mm=spacing_mm,
        box_start=(0, 0, 0),
        box_shape=shape,
        percentiles=percentiles,
    )


CASES = (
    measured("a", (10, 50, 60), (3.0, 1.0, 0.5), (-5, 0, 7, 90, 99), (1, 2, 3, 4, 5)),
    measured("b", (20, 50, 40), (2.0, 1.0, 1.0), (-9, 1, 5, 95, 999), (1, 1, 1, 9, 9)),
)


def test_ranges_by_hand():
    found = measure_ranges(CASES)
    assert found.spacing_mm == ((2, 3), (1, 1), (0.5, 1))
    assert found.extent_mm == ((30, 40), (50, 50), (30, 40))
    assert found.intensities == (
        ((0, 1), (5, 7), (90, 95)),
        ((1, 2), (1, 3), (4, 9)),
    )
    assert measure_ranges([make_case("Task99_Knee", "c")]) is None


def test_a_plan_has_the_ranges_of_its_usable_cases():
    facts = dataclasses.replace(make_domain(), modalities=("T1", "T2"), cases=CASES)
    domain, _ = plan_one(facts)
    assert domain.scans == measure_ranges(CASES)


def test_an_older_plan_without_ranges_counts_as_unchanged(tmp_path):
    facts = dataclasses.replace(make_domain(), modalities=("T1", "T2"), cases=CASES)
    (tmp_path / "survey.json").write_text(survey_file.to_json([facts]))
    output = tmp_path / "plan.json"
    config = PlanConfig.from_flat(
        {"survey": str(tmp_path), "output": str(output), "test_fraction": 0.5}
    )
    assert write_plan(config)[1]
    assert load_plan(output).domains[0].scans == measure_ranges(CASES)
    content = json.loads(output.read_text())
    del content["domains"][0]["scans"]
    output.write_text(json.dumps({**content, "format": 2}))
    assert not write_plan(config)[1]
