import dataclasses

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
