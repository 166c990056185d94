"""The ranking of cases, with scores calculated by hand."""

import dataclasses
import math

import pytest
from invented_surveys import make_case

from data_prep.survey.unusual_cases import rank_cases


def make(name, **changes):
    defaults = {"percentiles": ((0.0, 10.0, 50.0, 110.0, 500.0),)}
    return make_case("Task99_Knee", name, **{**defaults, **changes})


def rank(cases, modalities=("CT",)):
    return {item.case.case: item for item in rank_cases(cases, modalities)}


def test_identical_cases_are_sorted_by_name():
    ranked = rank_cases([make("b"), make("a"), make("c")], ["CT"])
    assert [(item.case.case, item.score) for item in ranked] == [
        ("a", 0),
        ("b", 0),
        ("c", 0),
    ]


def test_score_is_the_distance_in_robust_deviations():
    spacings = (1.0, math.e, math.e**2, math.e**3, math.e**10)
    cases = [
        make(str(i), spacing_mm=(size, 1.0, 1.0)) for i, size in enumerate(spacings)
    ]
    ranked = rank(cases)
    # The median is 2, the distances are 2, 1, 0, 1 and 8, and their median is 1.
    for name, distance in zip("01234", (2, 1, 0, 1, 8), strict=True):
        assert ranked[name].score == pytest.approx(distance / 1.4826)
    assert next(iter(ranked)) == "4"
    assert ranked["4"].measure == "spacing z 22026 mm"


def test_the_smallest_unit_is_one_hundredth():
    cases = [make(name) for name in "abcde"]
    cases[1] = make("b", shape=(20, 101, 80))
    cases[2] = make("c", percentiles=((0.0, 10.0, 53.0, 110.0, 500.0),))
    ranked = rank(cases)
    assert ranked["b"].score == pytest.approx(math.log(1.01) / 0.01)
    assert ranked["b"].measure == "extent y 101 mm"
    # The range from percentile 2 to 98 is 100.
    assert ranked["c"].score == pytest.approx(3 / 1)
    assert ranked["c"].measure == "CT p50 53"
    assert list(ranked) == ["c", "b", "a", "d", "e"]


def test_modalities_are_compared_separately():
    row = make("x").percentiles[0]
    bright = tuple(value * 10 for value in row)
    cases = [make(name, percentiles=(row, bright)) for name in "abc"]
    cases += [make("odd", percentiles=(row, row))]
    ranked = rank(cases, ("T1", "T1"))
    assert next(iter(ranked)) == "odd"
    assert ranked["odd"].measure.startswith("T1 p")
    assert ranked["a"].score == 0


def test_missing_measurements_are_ignored():
    empty = {"shape": (), "spacing_mm": (), "box_start": (), "box_shape": ()}
    unread = dataclasses.replace(make("a", percentiles=()), **empty)
    ranked = rank([unread, make("b", percentiles=((), ())), make("c")])
    assert (ranked["a"].score, ranked["a"].measure) == (0, "")
    assert ranked["b"].measure.startswith("spacing z")
    # An extra modality is a fault, but does not break the ranking.
    row = make("c").percentiles[0]
    (item,) = rank_cases([make("c", percentiles=(row, row))], ["CT"])
    assert item.score == 0


def test_constant_images_are_compared_too():
    flat = ((7.0,) * 5,)
    ranked = rank([make("a", percentiles=flat), make("b", percentiles=((9.0,) * 5,))])
    assert all(math.isfinite(item.score) for item in ranked.values())
