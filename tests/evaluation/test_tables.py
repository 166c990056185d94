import dataclasses
import json
import math

import pytest
import toy
import wcwidth

from u2net_tf.evaluation import tables
from u2net_tf.evaluation.tables import CaseScore, ClassScore

NAN = math.nan
SCORES = [
    CaseScore("Task91_One", "one_0", {"organ": 1.0}),
    CaseScore("Task91_One", "one_1", {"organ": 0.5}),
    CaseScore("Task92_Two", "two_0", {"rim": 0.125, "core": NAN}),
    CaseScore("Task92_Two", "two_1", {"rim": NAN, "core": NAN}),
]
ROWS = [
    ClassScore("Task91_One", "organ", 0.75, 0.25, 2, 0),
    ClassScore("Task92_Two", "rim", 0.125, 0.0, 1, 1),
    ClassScore("Task92_Two", "core", NAN, NAN, 0, 2),
]


def equal(first, second):
    """As ==, but NaN equals NaN."""
    return str(first) == str(second)


class TestSummarize:
    def test_mean_over_the_cases_that_have_a_dice(self):
        assert equal(tables.summarize(SCORES, toy.PLAN.domains), ROWS)

    def test_in_the_order_of_the_domains(self):
        rows = tables.summarize(SCORES, toy.PLAN.domains[::-1])
        assert equal(rows, [*ROWS[1:], ROWS[0]])

    def test_only_these_domains(self):
        assert tables.summarize(SCORES, [toy.ONE]) == ROWS[:1]

    def test_without_cases(self):
        (row,) = tables.summarize([], [toy.ONE])
        assert equal(row, ClassScore("Task91_One", "organ", NAN, NAN, 0, 0))


class TestMeanDice:
    def test_every_class_counts_once(self):
        # However many cases it has; a class without a Dice is left out.
        assert tables.mean_dice(ROWS) == pytest.approx((0.75 + 0.125) / 2)

    def test_of_nothing(self):
        assert math.isnan(tables.mean_dice(ROWS[2:]))
        assert math.isnan(tables.mean_dice([]))


class TestTable:
    def test_by_eye(self):
        assert tables.format_table(ROWS).splitlines() == [
            "domain               class      Dice %    ± sd    cases    absent",
            "-------------------  -------  --------  ------  -------  --------",
            "Task91_One           organ       75.00   25.00        2         0",
            "Task92_Two           rim         12.50    0.00        1         1",
            "Task92_Two           core            –       –        0         2",
            "-------------------  -------  --------  ------  -------  --------",
            "mean of the classes              43.75",
            "absent: 3 times neither mask holds the class; such a Dice is not defined "
            "and left out of the mean",
        ]

    def test_says_nothing_of_absent_classes_where_there_are_none(self):
        assert "neither" not in tables.format_table(ROWS[:1])

    @pytest.mark.parametrize(
        "name", ["x", "a domain with a very long name", "cafe\u0301", "脾臓"]
    )
    def test_columns_line_up(self, name):
        """Whatever the width of a letter: none of an accent, two of a Chinese one."""
        rows = [dataclasses.replace(row, domain=name, num_cases=12345) for row in ROWS]
        head, rule, *lines = tables.format_table(rows).splitlines()[:5]
        assert len({wcwidth.wcswidth(line) for line in (head, rule, *lines)}) == 1
        for line in lines:
            assert wcwidth.wcswidth(line[: line.index(" ")]) <= head.index("class") - 2


class TestCsv:
    def test_a_row_per_case_and_class(self):
        assert tables.cases_to_csv(SCORES).splitlines() == [
            "domain,case,class,dice",
            "Task91_One,one_0,organ,1.000000",
            "Task91_One,one_1,organ,0.500000",
            "Task92_Two,two_0,rim,0.125000",
            "Task92_Two,two_0,core,",
            "Task92_Two,two_1,rim,",
            "Task92_Two,two_1,core,",
        ]


class TestJson:
    def test_what_is_not_defined_is_null(self):
        text = tables.summary_to_json(
            ROWS, split="test", checkpoint="model/step-9", skipped={"a/b": "why"}
        )
        assert "NaN" not in text
        content = json.loads(text)
        assert content["split"] == "test"
        assert content["skipped"] == {"a/b": "why"}
        assert content["checkpoint"] == "model/step-9"
        assert content["mean_dice"] == pytest.approx(0.4375)
        assert content["classes"][0] == dataclasses.asdict(ROWS[0])
        assert content["classes"][2] == {
            "domain": "Task92_Two",
            "label": "core",
            "mean": None,
            "standard_deviation": None,
            "num_cases": 0,
            "num_absent": 2,
        }

    def test_older_ones_skipped_no_case(self):
        text = tables.summary_to_json(ROWS, split="test", checkpoint="c", skipped={})
        content = {**json.loads(text), "format": 1}
        del content["skipped"]
        older = tables.SUMMARY.from_text(json.dumps(content), "summary.json")
        assert older.skipped == {}

    def test_without_any_dice(self):
        text = tables.summary_to_json(
            ROWS[2:], split="test", checkpoint="c", skipped={}
        )
        assert json.loads(text)["mean_dice"] is None
