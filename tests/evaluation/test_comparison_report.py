import dataclasses
import math
import pathlib

import pytest

from u2net_tf.evaluation import comparison_report
from u2net_tf.evaluation.compare_scores import MEAN_OF_CLASSES, Comparison
from u2net_tf.evaluation.paired_statistics import Pair, PairedScores
from u2net_tf.evaluation.saved_scores import Scores
from u2net_tf.evaluation.tables import Summary

NAN = math.nan


def scores(name, *, split="test"):
    summary = Summary(split, f"{name}/step-1", 0.5, (), {})
    return Scores(pathlib.Path(name), summary, ())


def row(domain, label, pairs, *, interval=(NAN, NAN), median=0.0, p_value=NAN):
    return PairedScores(
        domain,
        label,
        tuple(Pair(*pair) for pair in pairs),
        baseline=sum(pair[1] for pair in pairs) / len(pairs),
        candidate=sum(pair[2] for pair in pairs) / len(pairs),
        median=median,
        interval=interval,
        p_value=p_value,
        num_increased=3,
        num_decreased=1,
    )


RIM = row(
    "Two",
    "rim",
    [("a", 0.5, 0.75), ("b", 0.5, 0.5), ("c", 0.8, 0.7)],
    interval=(-0.1, 0.25),
    median=0.03,
    p_value=0.0123,
)
CORE = row("Two", "core", [("a", 0.25, 0.35)], interval=(0.1, 0.2), p_value=0.0004)
MEAN = row("Two", MEAN_OF_CLASSES, [("a", 0.1, 0.9)])
BOTH = row("Two", "both", [("a", 0.3, 0.1)])
ORGAN = row("One", "organ", [("a", 0.99996, 0.99999)])


def report(*classes, regions=(), measure="dice", notes=(), unit="case", split="test"):
    comparison = Comparison(
        measure, scores("m"), scores("n", split=split), classes, regions, notes
    )
    return comparison_report.format_comparison(comparison, unit=unit).splitlines()


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_sources():
    assert report(RIM, split=None)[:3] == [
        "baseline: m (m/step-1, test cases)",
        "candidate: n (n/step-1)",
        "",
    ]


def test_settings_that_affect_the_scores():
    """Without them, scores of one model with different settings look the same."""
    changed = {
        "prediction": {"test_time_mirroring": True},
        "postprocessing": {"keep_components": 1},
        "depths": {"Two": 3},
    }
    summary = dataclasses.replace(scores("m").summary, **changed)
    found = dataclasses.replace(scores("m"), summary=summary)
    comparison = Comparison("dice", found, scores("n"), (RIM,), (), ())
    first, *_ = comparison_report.format_comparison(comparison).splitlines()
    assert first == (
        "baseline: m (m/step-1, test cases, test_time_mirroring=True, "
        "keep_components=1, Two at depth 3)"
    )


def test_a_row_per_class():
    lines = report(RIM, CORE, MEAN)
    head = ["domain", "class", "cases", "baseline Dice %", "candidate", "difference"]
    head += ["95 % interval", "median", "better", "worse", "p"]
    assert cells(lines[3]) == head
    rim = ["60.00", "65.00", "+5.00", "-10.00 to +25.00", "+3.00", "3", "1", "0.012"]
    assert cells(lines[5]) == ["Two", "rim", "3", *rim]
    core = ["25.00", "35.00", "+10.00", "+10.00 to +20.00", "0.00", "3", "1", "<0.001"]
    assert cells(lines[6]) == ["Two", "core", "1", *core]
    mean = ["10.00", "90.00", "+80.00", "–", "0.00", "3", "1", "–"]
    assert cells(lines[7]) == ["Two", "mean of the classes", "1", *mean]
    assert lines[8].startswith("Dice %: means over the cases with a score in both")


def test_mean_of_several_domains():
    """Of the classes, each with the same weight."""
    lines = report(ORGAN, RIM, CORE, MEAN)
    last = ["mean of all classes", "61.67", "66.67", "+5.00"]
    assert cells(lines[10]) == last
    assert set(lines[9]) == {"-", " "}


def test_differences_that_are_rounded_to_0_have_no_sign():
    assert cells(report(ORGAN)[5])[3:6] == ["100.00", "100.00", "0.00"]


def test_regions_follow():
    lines = report(CORE, regions=(BOTH,))
    assert lines[7].strip() == "regions, not in the means"
    assert cells(lines[8])[:6] == ["Two", "both", "1", "30.00", "10.00", "-20.00"]


@pytest.mark.parametrize(
    ("measure", "name"),
    [("hd95_mm", "HD95 mm"), ("false_positive_ml", "false positives ml")],
)
def test_lower_distances_and_volumes_are_better(measure, name):
    lines = report(RIM, measure=measure)
    assert f"baseline {name}" in lines[3]
    assert cells(lines[5])[3:6] == ["0.60", "0.65", "+0.05"]
    assert cells(lines[5])[-3:-1] == ["1", "3"]


def test_a_higher_surface_dice_is_better():
    lines = report(RIM, measure="surface_dice")
    assert "baseline surface Dice %" in lines[3]
    assert cells(lines[5])[3:6] == ["60.00", "65.00", "+5.00"]
    assert cells(lines[5])[-3:-1] == ["3", "1"]


def test_groups():
    text = "\n".join(report(RIM, unit="group"))
    assert "cases  " not in text
    assert "groups    baseline" in text
    assert "bootstrap over groups" in text


def test_largest_changes():
    """Not those of means and regions, and none that do not change."""
    lines = report(RIM, CORE, MEAN, regions=(BOTH,))
    start = lines.index("largest increases:")
    assert lines[start:] == [
        "largest increases:",
        "  a, Two/rim: 50.00 to 75.00",
        "  a, Two/core: 25.00 to 35.00",
        "largest decreases:",
        "  c, Two/rim: 80.00 to 70.00",
    ]


def test_rounding_errors_are_no_changes():
    """Such as those of two groups that have the same scores in another order."""
    first, second = (0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3
    assert first != second
    for pair in (("a", first, second), ("a", second, first)):
        assert not any("largest" in line for line in report(row("D", "c", [pair])))


def test_three_largest_changes():
    pairs = [(str(i), 0.5, 0.5 + i / 10) for i in range(5)]
    lines = report(row("d", "c", pairs))
    assert [line[2] for line in lines[lines.index("largest increases:") + 1 :]] == [
        "4",
        "3",
        "2",
    ]


def test_equal_changes_keep_the_order_of_the_cases():
    lines = report(row("d", "c", [(name, 0.5, 0.25) for name in "abcd"]))
    assert [line[2] for line in lines[-3:]] == ["a", "b", "c"]
    lines = report(row("d", "c", [(name, 0.25, 0.5) for name in "abcd"]))
    assert [line[2] for line in lines[-3:]] == ["a", "b", "c"]


def test_notes_come_last():
    assert report(RIM, notes=("one", "two"))[-2:] == ["one", "two"]


@pytest.mark.parametrize(
    ("measure", "factor", "lower"), [("dice", 100, False), ("hd95_mm", 1, True)]
)
def test_picture(measure, factor, lower, monkeypatch):
    calls = []
    monkeypatch.setattr(
        comparison_report.paired_scores,
        "draw_paired_scores",
        lambda *args, **options: calls.append((args, options)),
    )
    comparison = Comparison(measure, scores("m"), scores("n"), (CORE,), (BOTH,), ())
    comparison_report.draw_comparison(comparison, pathlib.Path("out.png"))
    (((core, both), output), options) = calls[0]
    assert output == pathlib.Path("out.png")
    assert options["lower_is_better"] == lower
    assert options["measure"] == comparison_report.MEASURES[measure][0]
    assert (core.title, both.title) == ("Two\ncore", "Two\nboth")
    assert core.names == ["a"]
    assert core.baseline == [0.25 * factor]
    assert core.candidate == [0.35 * factor]
