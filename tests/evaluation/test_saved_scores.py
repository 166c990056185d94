import dataclasses
import math

import pytest
import toy

from u2net_tf.errors import InputError
from u2net_tf.evaluation import results, scores_csv, tables
from u2net_tf.evaluation.saved_scores import read_scores
from u2net_tf.evaluation.tables import CaseScore

ONE, TWO = toy.ONE.name, toy.TWO.name
SCORES = [
    *(CaseScore(ONE, case, {"organ": 0.5}, {}) for case in "abc"),
    CaseScore(TWO, "d", {"rim": 0.25, "core": 0.75}, {}),
]
E = dataclasses.replace(SCORES[3], case="e")
OTHER = dataclasses.replace(SCORES[0], domain="Other")


@pytest.fixture
def folder(tmp_path):
    fields = results.summary_fields(SCORES, (toy.ONE, toy.TWO), {})
    results.write(tmp_path, SCORES, tables.Summary("test", "m/step-1", **fields), {})
    return tmp_path


def test_read_as_written(folder):
    found = read_scores(folder)
    assert found.cases == tuple(SCORES)
    assert (found.folder, found.summary.checkpoint) == (folder, "m/step-1")
    assert found.domains == (ONE, TWO)
    assert found.labels(TWO) == ("rim", "core")


@pytest.mark.parametrize("name", ["dice.csv", "summary.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: .*no such file"):
        read_scores(folder)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (SCORES[1:], f"3 cases of {ONE}/organ, .*Received: 2"),
        # None of a domain is left.
        (SCORES[:3], f"1 case of {TWO}/rim, .*Received: 0"),
        ([*SCORES, E], f"1 case of {TWO}/rim, .*Received: 2"),
        ([*SCORES, OTHER], "0 cases of Other/organ, .*Received: 1"),
    ],
)
def test_files_of_different_cases(folder, scores, words):
    (folder / "dice.csv").write_text(scores_csv.to_csv(scores))
    with pytest.raises(InputError, match=f"dice.csv: expected {words}"):
        read_scores(folder)


ROUNDED = [
    CaseScore(ONE, case, {"organ": k / 7}, {}, {"organ": k / 3}, {"organ": k / 9})
    for k, case in enumerate("abcde")
]
EMPTY = CaseScore(ONE, "f", {"organ": math.nan}, {"organ": 1 / 7})


@pytest.mark.parametrize(
    ("number", "change", "words"),
    [
        (
            0,
            {"dice": {"organ": math.nan}},
            "mean 0.285714286 of {ONE}/organ, .*: 0.357",
        ),
        (1, {"dice": {"organ": 0.142}}, "mean 0.285714286 of .*Received: 0.28554"),
        (3, {"hd95_mm": {"organ": math.nan}}, "hd95_mm .*Received: "),
        (3, {"surface_dice": {"organ": 0.3}}, "surface_dice .*Received: "),
        (4, {"false_positive_ml": {"organ": 1.0}}, "num_without 1 .*Received: 2"),
        (5, {"false_positive_ml": {"organ": 0.0}}, "false_positive_ml .*Received: 0"),
        (5, {"false_positive_ml": {}}, "num_without 1 .*Received: 0"),
        # The others have the same mean.
        (2, {"dice": {"organ": math.nan}}, "standard_deviation .*Received: "),
    ],
)
def test_a_cell_that_was_edited(tmp_path, number, change, words):
    scores = [*ROUNDED, EMPTY]
    fields = results.summary_fields(scores, (toy.ONE,), {})
    results.write(tmp_path, scores, tables.Summary("test", "m/step-1", **fields), {})
    assert len(read_scores(tmp_path).cases) == 6
    scores[number] = dataclasses.replace(scores[number], **change)
    (tmp_path / "dice.csv").write_text(scores_csv.to_csv(scores))
    words = words.format(ONE=ONE)
    with pytest.raises(InputError, match=f"dice.csv: expected {words}"):
        read_scores(tmp_path)
