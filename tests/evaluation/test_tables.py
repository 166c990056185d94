import dataclasses
import json
import math

import pytest
import toy
import wcwidth

from u2net_tf.evaluation import tables
from u2net_tf.evaluation.tables import CaseScore, ClassScore
from u2net_tf.plan.labels import Region

NAN = math.nan
SCORES = [
    CaseScore("Task91_One", "one_0", {"organ": 1.0}, {}),
    CaseScore("Task91_One", "one_1", {"organ": 0.5}, {}),
    CaseScore(
        "Task92_Two", "two_0", {"rim": 0.0, "core": NAN}, {"rim": 4.5, "core": 0.0}
    ),
    CaseScore(
        "Task92_Two", "two_1", {"rim": NAN, "core": NAN}, {"rim": 0.0, "core": 0.0}
    ),
    CaseScore("Task92_Two", "two_2", {"rim": 0.25, "core": NAN}, {"core": 0.0}),
]
ROWS = [
    ClassScore("Task91_One", "organ", 0.75, 0.25, 2, 0, 0, NAN),
    ClassScore("Task92_Two", "rim", 0.125, 0.125, 2, 1, 2, 2.25),
    ClassScore("Task92_Two", "core", NAN, NAN, 0, 3, 3, 0.0),
]


def equal(first, second):
    """Like ==, but NaN equals NaN."""
    return str(first) == str(second)


class TestSummarize:
    def test_mean_over_the_cases_that_have_a_dice(self):
        assert equal(tables.summarize(SCORES, toy.PLAN.domains), ROWS)

    def test_in_the_order_of_the_domains(self):
        rows = tables.summarize(SCORES, toy.PLAN.domains[::-1])
        assert equal(rows, [*ROWS[1:], ROWS[0]])

    def test_only_these_domains(self):
        assert equal(tables.summarize(SCORES, [toy.ONE]), ROWS[:1])

    def test_without_cases(self):
        (row,) = tables.summarize([], [toy.ONE])
        assert equal(row, ClassScore("Task91_One", "organ", NAN, NAN, 0, 0, 0, NAN))


class TestRegions:
    REGION = Region("both", ("rim", "core"))
    DOMAINS = (toy.ONE, dataclasses.replace(toy.TWO, regions=(REGION,)))
    SCORES = [
        *SCORES[:2],
        *(dataclasses.replace(s, dice={**s.dice, "both": 0.5}) for s in SCORES[2:]),
    ]

    def test_are_not_classes(self):
        assert equal(tables.summarize(self.SCORES, self.DOMAINS), ROWS)
        (row,) = tables.summarize_regions(self.SCORES, self.DOMAINS)
        assert equal(row, ClassScore("Task92_Two", "both", 0.5, 0.0, 3, 0, 0, NAN))

    def test_follow_the_mean_in_the_table(self):
        regions = tables.summarize_regions(self.SCORES, self.DOMAINS)
        lines = tables.format_table(ROWS, regions).splitlines()
        start = next(i for i, line in enumerate(lines) if "43.75" in line)
        assert lines[start].startswith("mean of the classes")
        assert lines[start + 1].startswith("-----")
        assert lines[start + 2].rstrip() == "regions, not in the mean"
        columns = ["Task92_Two", "both", "50.00", "0.00", "3", "0", "0", "–"]
        assert lines[start + 3].split() == columns

    def test_their_absences_are_counted(self):
        row = ClassScore("Task92_Two", "both", 0.5, 0.0, 1, 2, 1, 3.0)
        for rows, total in ((ROWS[:1], 2), (ROWS, 6)):
            text = tables.format_table(rows, [row])
            assert f"neither mask contains the class ({total} in total)" in text
            assert "FP ml" in text
            assert "3.0" in text


class TestMeanDice:
    def test_every_class_has_the_same_weight(self):
        # Whatever its number of cases; a class without a Dice is left out.
        assert tables.mean_dice(ROWS) == pytest.approx((0.75 + 0.125) / 2)

    def test_without_any_dice(self):
        assert math.isnan(tables.mean_dice(ROWS[2:]))
        assert math.isnan(tables.mean_dice([]))


class TestTable:
    def test_layout(self):
        assert tables.format_table(ROWS).splitlines() == [
            "domain               class      Dice %    ± sd    cases    absent"
            "    without    FP ml",
            "-------------------  -------  --------  ------  -------  --------"
            "  ---------  -------",
            "Task91_One           organ       75.00   25.00        2         0"
            "          0        –",
            "Task92_Two           rim         12.50   12.50        2         1"
            "          2     2.25",
            "Task92_Two           core            –       –        0         3"
            "          3     0.00",
            "-------------------  -------  --------  ------  -------  --------"
            "  ---------  -------",
            "mean of the classes              43.75",
            "absent: neither mask contains the class (4 in total); the Dice is "
            "undefined and excluded from the mean",
            "without: the reference lacks the class; FP ml: its mean predicted volume "
            "in these cases",
        ]

    def test_without_a_class_that_is_absent(self):
        assert tables.format_table(ROWS[:1]).splitlines() == [
            "domain               class      Dice %    ± sd    cases    absent",
            "-------------------  -------  --------  ------  -------  --------",
            "Task91_One           organ       75.00   25.00        2         0",
            "-------------------  -------  --------  ------  -------  --------",
            "mean of the classes              75.00",
        ]

    def test_explains_absent_classes_only_if_there_are_any(self):
        assert "neither" not in tables.format_table(ROWS[:1])

    @pytest.mark.parametrize(
        "name", ["x", "a domain with a very long name", "cafe\u0301", "脾臓"]
    )
    def test_columns_line_up(self, name):
        """With letters of any width: 0 for a combining accent, 2 for a Chinese one."""
        rows = [dataclasses.replace(row, domain=name, num_cases=12345) for row in ROWS]
        head, rule, *lines = tables.format_table(rows).splitlines()[:5]
        assert len({wcwidth.wcswidth(line) for line in (head, rule, *lines)}) == 1
        for line in lines:
            assert wcwidth.wcswidth(line[: line.index(" ")]) <= head.index("class") - 2


def summary_text(rows, *, checkpoint="c", skipped=None, **fields):
    return tables.summary_to_json(
        tables.Summary(
            "test",
            checkpoint,
            tables.mean_dice(rows),
            tuple(rows),
            skipped or {},
            **fields,
        )
    )


class TestJson:
    def test_undefined_values_are_null(self):
        text = summary_text(
            ROWS,
            checkpoint="model/step-9",
            skipped={"a/b": "why"},
            postprocessing={"keep_components": 2},
            prediction={"overlap": 0.25, "skip_empty": False, "precision": "float16"},
            depths={"Task91_One": 2},
        )
        assert "NaN" not in text
        content = json.loads(text)
        assert content["split"] == "test"
        assert content["skipped"] == {"a/b": "why"}
        assert content["postprocessing"] == {"keep_components": 2}
        assert content["prediction"] == {
            "overlap": 0.25,
            "skip_empty": False,
            "precision": "float16",
        }
        assert content["depths"] == {"Task91_One": 2}
        assert tables.summary_to_json(tables.SUMMARY.from_text(text, "s.json")) == text
        assert content["checkpoint"] == "model/step-9"
        assert content["mean_dice"] == pytest.approx(0.4375)
        assert content["classes"][0]["false_positive_ml"] is None
        surfaces = {"hd95_mm": None, "surface_dice": None}
        assert content["classes"][1] == {**dataclasses.asdict(ROWS[1]), **surfaces}
        assert content["classes"][2] == {
            "domain": "Task92_Two",
            "label": "core",
            "mean": None,
            "standard_deviation": None,
            "num_cases": 0,
            "num_absent": 3,
            "num_without": 3,
            "false_positive_ml": 0.0,
            **surfaces,
        }
        assert content["surface_tolerance_mm"] is None

    def test_older_files_have_no_skipped_cases(self):
        content = {**json.loads(summary_text(ROWS)), "format": 1}
        for name in ("skipped", "postprocessing", "prediction", "depths"):
            del content[name]
        del content["surface_tolerance_mm"]
        for row in content["classes"]:
            del row["num_without"], row["false_positive_ml"]
            del row["hd95_mm"], row["surface_dice"]
        older = tables.SUMMARY.from_text(json.dumps(content), "summary.json")
        assert older.skipped == {}
        assert older.postprocessing == {}
        assert older.prediction is older.depths is None
        assert [row.num_without for row in older.classes] == [0, 0, 0]
        assert math.isnan(older.classes[1].false_positive_ml)
        assert math.isnan(older.classes[1].hd95_mm)
        assert older.surface_tolerance_mm is None
        # Not empty, which would mean that there are none.
        assert older.checkpoint_hashes is older.training_cases is None
        assert older.region_classes is older.domains_with_unlisted_cases is None

    def test_without_any_dice(self):
        assert json.loads(summary_text(ROWS[2:]))["mean_dice"] is None


class TestSurfaces:
    scores = (
        dataclasses.replace(
            SCORES[2],
            hd95_mm={"rim": NAN, "core": 4.0},
            surface_dice={"rim": 0.0, "core": 1.0},
        ),
        dataclasses.replace(
            SCORES[4],
            hd95_mm={"rim": 2.5, "core": 3.0},
            surface_dice={"rim": 0.5, "core": NAN},
        ),
    )

    def test_means_over_the_cases_in_which_they_are_defined(self):
        rim, core = tables.summarize(self.scores, [toy.TWO])
        assert (rim.hd95_mm, rim.surface_dice) == (2.5, 0.25)
        assert (core.hd95_mm, core.surface_dice) == (3.5, 1.0)

    def test_columns_of_the_table(self):
        rows = [
            dataclasses.replace(ROWS[0], hd95_mm=2.504, surface_dice=0.9513),
            dataclasses.replace(ROWS[2], hd95_mm=NAN, surface_dice=NAN),
        ]
        head, _, first, second, *_ = tables.format_table(
            rows, surface_tolerance_mm=1.5
        ).splitlines()
        assert "absent    HD95 mm    surface Dice % at 1.5 mm    without" in head
        assert first.split()[-4:] == ["2.50", "95.13", "0", "–"]
        assert second.split()[-4:] == ["–", "–", "3", "0.00"]
