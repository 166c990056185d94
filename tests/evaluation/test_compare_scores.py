import dataclasses
import json
import math
import sys

import pytest
import toy

from u2net_tf.config.evaluation import CompareConfig
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.evaluation import results, tables
from u2net_tf.evaluation.compare_scores import MEAN_OF_CLASSES, compare_scores
from u2net_tf.evaluation.tables import CaseScore
from u2net_tf.plan.labels import Region

NAN = math.nan
ONE, TWO = toy.ONE, toy.TWO


def one(case, organ, **fields):
    return CaseScore(ONE.name, case, {"organ": organ}, {}, **fields)


def two(case, rim, core, **fields):
    return CaseScore(TWO.name, case, {"rim": rim, "core": core}, {}, **fields)


BASELINE = [one("a", 0.5), one("b", 0.7), one("c", 0.9), two("d", 0.2, 0.4)]
CANDIDATE = [one("a", 0.6), one("b", 0.9), one("c", 0.8), two("d", 0.4, 0.8)]


@pytest.fixture
def write(tmp_path):
    """Writes scores to a folder, as `evaluate` does; returns the folder."""

    def write_scores(name, scores, *, domains=(ONE, TWO), **fields):
        folder = tmp_path / name
        folder.mkdir()
        summary = tables.Summary(
            **{"split": "test", "checkpoint": "m/checkpoints/step-1"} | fields,
            **results.summary_fields(scores, domains, {}),
        )
        results.write(folder, scores, summary, {})
        return folder

    return write_scores


@pytest.fixture
def compare(write):
    """Compares two lists of scores."""

    def compare_lists(baseline, candidate, *, summary=({}, {}), **settings):
        folders = {
            "baseline": str(write("first", baseline, **summary[0])),
            "candidate": str(write("second", candidate, **summary[1])),
        }
        return compare_scores(CompareConfig(**folders, **settings))

    return compare_lists


def rows_of(found):
    """(domain, class) -> names, and mean scores rounded to 6 digits."""
    return {
        (row.domain, row.label): (
            "".join(pair.name for pair in row.pairs),
            round(row.baseline, 6),
            round(row.candidate, 6),
        )
        for row in (*found.classes, *found.regions)
    }


def test_classes_and_their_means(compare):
    found = compare(BASELINE, CANDIDATE)
    assert rows_of(found) == {
        (ONE.name, "organ"): ("abc", 0.7, 0.766667),
        (TWO.name, "rim"): ("d", 0.2, 0.4),
        (TWO.name, "core"): ("d", 0.4, 0.8),
        (TWO.name, MEAN_OF_CLASSES): ("d", 0.3, 0.6),
    }
    (organ, *_) = found.classes
    assert (organ.num_increased, organ.num_decreased) == (2, 1)
    assert (found.notes, found.regions, found.measure) == ((), (), "dice")
    assert found.baseline.folder.name == "first"
    assert found.candidate.summary.checkpoint == "m/checkpoints/step-1"


def test_only_some_domains(compare):
    found = compare(BASELINE, CANDIDATE[:3], domains=(ONE.name,))
    assert rows_of(found).keys() == {(ONE.name, "organ")}
    assert found.notes == ()


def test_the_order_of_cases_does_not_matter(compare):
    found = compare(BASELINE[:3], CANDIDATE[2::-1])
    assert rows_of(found)[ONE.name, "organ"] == ("abc", 0.7, 0.766667)


def test_what_only_one_of_them_has(compare):
    renamed = dataclasses.replace(BASELINE[0], domain="Task93_Three")
    three = dataclasses.replace(ONE, name="Task93_Three")
    found = compare(
        [*BASELINE, two("e", NAN, 0.5), two("f", 0.5, NAN)],
        [*CANDIDATE[1:3], two("e", 0.1, 0.7), two("f", 0.7, NAN), renamed],
        summary=({}, {"domains": (ONE, TWO, three)}),
    )
    assert rows_of(found) == {
        (ONE.name, "organ"): ("bc", 0.8, 0.85),
        (TWO.name, "rim"): ("f", 0.5, 0.7),
        (TWO.name, "core"): ("e", 0.5, 0.7),
        # Over the classes that have a score in both.
        (TWO.name, MEAN_OF_CLASSES): ("ef", 0.5, 0.7),
    }
    first, second = found.baseline.folder, found.candidate.folder
    assert found.notes == (
        f"1 domain only in {second}: Task93_Three",
        f"{ONE.name}: 1 case only in {first}: a",
        f"{TWO.name}: 1 case only in {first}: d",
        f"{TWO.name}: 1 case with a score of rim only in {second}: e",
    )


def test_a_class_without_scores_in_both(compare):
    found = compare([two("d", 0.5, NAN)], [two("d", 0.75, NAN)])
    assert rows_of(found) == {(TWO.name, "rim"): ("d", 0.5, 0.75)}
    words = "no case has a score of core in both, so it is not compared"
    assert found.notes == (f"{TWO.name}: {words}",)


def test_a_class_that_only_one_of_them_has(compare):
    core = dataclasses.replace(TWO, labels=(TWO.labels[0], *TWO.labels[2:]))
    of_core = CaseScore(TWO.name, "d", {"core": 0.5}, {})
    found = compare(BASELINE, [of_core], summary=({}, {"domains": (core,)}))
    assert rows_of(found) == {(TWO.name, "core"): ("d", 0.4, 0.5)}
    first = found.baseline.folder
    assert f"{TWO.name}: 1 class only in {first}: rim" in found.notes


def test_a_single_class_with_scores_in_both_has_no_mean(compare):
    found = compare([two("d", NAN, 0.5)], [two("d", 0.5, 0.75)])
    assert rows_of(found) == {(TWO.name, "core"): ("d", 0.5, 0.75)}


def test_notes_on_several(compare):
    other = dataclasses.replace(TWO, labels=(TWO.labels[0], *ONE.labels[1:]))
    found = compare(
        [one("a", 0.5), one("b", 0.5), one("c", 0.5), two("d", 0.5, 0.5)],
        [
            *(one("a", 0.5), one("b", NAN), one("c", NAN)),
            CaseScore(TWO.name, "d", {"organ": 0.5}, {}),
        ],
        summary=({}, {"domains": (ONE, other)}),
    )
    first, second = found.baseline.folder, found.candidate.folder
    assert found.notes == (
        f"{ONE.name}: 2 cases with a score of organ only in {first}: b, c",
        f"{TWO.name}: 2 classes only in {first}: rim, core",
        f"{TWO.name}: 1 class only in {second}: organ",
    )


@pytest.mark.parametrize(
    ("measure", "means"),
    [("hd95_mm", (2.0, 3.0)), ("surface_dice", (0.5, 0.75))],
)
def test_measures_of_surfaces(compare, measure, means):
    scores = [
        [one("a", 0.5, hd95_mm={"organ": hd95}, surface_dice={"organ": dice})]
        for hd95, dice in ((2.0, 0.5), (3.0, 0.75))
    ]
    tolerance = {"surface_tolerance_mm": 1.0}
    found = compare(*scores, measure=measure, summary=(tolerance, tolerance))
    assert rows_of(found) == {(ONE.name, "organ"): ("a", *means)}


def test_false_positives(compare):
    """Only in cases whose reference lacks the class."""
    scores = [
        [CaseScore(ONE.name, "a", {"organ": 0.0}, {"organ": ml}), one("b", 0.5)]
        for ml in (2.0, 1.5)
    ]
    found = compare(*scores, measure="false_positive_ml")
    assert rows_of(found) == {(ONE.name, "organ"): ("a", 2.0, 1.5)}


@pytest.mark.parametrize(
    ("measure", "tolerances", "words"),
    [
        ("hd95_mm", (None, 1.0), "first, scored without `surface_tolerance_mm`"),
        ("surface_dice", (1.0, None), "second, scored without"),
        ("surface_dice", (1.0, 2.0), "1 mm in .*first, 2 mm in .*second"),
    ],
)
def test_surfaces_that_cannot_be_compared(compare, measure, tolerances, words):
    summary = [{"surface_tolerance_mm": each} for each in tolerances]
    surfaces = {"hd95_mm": {"organ": 1.0}, "surface_dice": {"organ": 1.0}}
    with pytest.raises(InputError, match=f"`measure`: expected {measure}.*{words}"):
        compare(*[[one("a", 1.0, **surfaces)]] * 2, measure=measure, summary=summary)


def test_hd95_does_not_depend_on_the_tolerance(compare):
    scores = [one("a", 1.0, hd95_mm={"organ": 1.0}, surface_dice={"organ": 1.0})]
    summary = [{"surface_tolerance_mm": each} for each in (1.0, 2.0)]
    assert compare(scores, scores, measure="hd95_mm", summary=summary).classes


class TestRegions:
    REGION = Region("both", ("rim", "core"))

    def scores(self, dice):
        every = {"rim": 0.2, "core": 0.4, "both": dice}
        return [CaseScore(TWO.name, "d", every, {})]

    def domains(self, region):
        return {"domains": (dataclasses.replace(TWO, regions=(region,)),)}

    def test_are_compared(self, compare):
        # The order of the classes does not matter.
        other = Region("both", ("core", "rim"))
        summary = (self.domains(self.REGION), self.domains(other))
        found = compare(self.scores(0.5), self.scores(0.75), summary=summary)
        (row,) = found.regions
        assert (row.label, row.baseline, row.candidate) == ("both", 0.5, 0.75)
        means = {row.label: row.baseline for row in found.classes}
        assert means[MEAN_OF_CLASSES] == pytest.approx(0.3)

    def test_of_other_classes_are_not(self, compare):
        summary = (self.domains(self.REGION), self.domains(Region("both", ("rim",))))
        found = compare(self.scores(0.5), self.scores(0.75), summary=summary)
        assert found.regions == ()
        (note,) = found.notes
        assert "region both consists of rim+core in" in note
        assert "but of rim in" in note

    @pytest.mark.parametrize("is_baseline", [True, False])
    def test_of_an_older_version(self, write, is_baseline):
        """Its summaries do not name the classes of regions."""
        summary = (self.domains(self.REGION), self.domains(self.REGION))
        folder = write("old", self.scores(0.25), **summary[0])
        path = folder / "summary.json"
        fields = json.loads(path.read_text()) | {"region_classes": None}
        path.write_text(json.dumps(fields))
        new = write("new", self.scores(0.5), **summary[1])
        baseline, candidate = (folder, new) if is_baseline else (new, folder)
        found = compare_scores(
            CompareConfig(baseline=str(baseline), candidate=str(candidate))
        )
        (row,) = found.regions
        assert {row.baseline, row.candidate} == {0.25, 0.5}


class TestGroups:
    BASELINE = [one("p1_1", 0.2), one("p1_2", 0.4), one("p2_1", 0.5)]
    CANDIDATE = [one("p1_1", 0.3), one("p1_2", 0.7), one("p2_1", 0.4)]

    def test_mean_of_the_cases(self, compare):
        found = compare(self.BASELINE, self.CANDIDATE, group_by=r"(p\d)_")
        assert rows_of(found) == {(ONE.name, "organ"): ("p1p2", 0.4, 0.45)}

    def test_mean_of_the_cases_in_both(self, compare):
        found = compare(self.BASELINE, self.CANDIDATE[1:], group_by=r"(p\d)_")
        assert rows_of(found) == {(ONE.name, "organ"): ("p1p2", 0.45, 0.55)}

    def test_an_expression_that_matches_no_case(self, compare):
        found = compare(self.BASELINE, self.CANDIDATE, group_by="(x)")
        assert len(found.classes[0].pairs) == 3
        assert found.notes == (
            f"{ONE.name}: `group_by`=(x) matches no case; each case is its own group",
        )

    @pytest.mark.parametrize("expression", ["(p1)", "p", "(("])
    def test_other_expressions_are_refused(self, compare, expression):
        with pytest.raises(InputError, match="`group_by`: expected a"):
            compare(self.BASELINE, self.CANDIDATE, group_by=expression)


@pytest.mark.parametrize(("folder", "index"), [("first", 0), ("second", 1)])
def test_cases_that_a_model_was_trained_on(compare, caplog, folder, index):
    summary = [{}, {}]
    summary[index] = {"training_cases": (f"{ONE.name}/a",)}
    compare(BASELINE, CANDIDATE, summary=summary)
    (record,) = caplog.records
    words = f"{folder}: scores of 1 case that the model was trained on: {ONE.name}/a"
    assert record.getMessage().endswith(words)


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ([one("d", 0.5)], "1 case only in .*first: a.*1 case only in .*second: d"),
        ([one("a", NAN)], "1 case with a score of organ only in .*first: a"),
        ([two("a", 0.5, 0.5)], "1 domain only in .*first: .*1 domain only in .*second"),
    ],
)
def test_nothing_in_common(compare, candidate, words):
    with pytest.raises(
        InputError, match=f"`candidate`: expected dice of .*first.*{words}"
    ):
        compare([one("a", 0.5)], candidate)


@pytest.mark.parametrize("domains", [("no",), (ONE.name, "no"), (TWO.name,)])
def test_domains_must_be_in_both(compare, domains):
    with pytest.raises(
        InputError, match=f"`domains`: expected domains in .*{ONE.name}"
    ):
        compare(BASELINE, CANDIDATE[:3], domains=domains)


def test_needs_scipy(monkeypatch, tmp_path):
    """Before anything is read."""
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(StoppedError, match="SciPy is required"):
        compare_scores(CompareConfig(baseline=str(tmp_path), candidate="b"))
