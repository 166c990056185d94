import math

import pytest

from u2net_tf.errors import InputError
from u2net_tf.evaluation import scores_csv
from u2net_tf.evaluation.tables import CaseScore

NAN = math.nan
SCORES = [
    CaseScore("Task91_One", "one_0", {"organ": 1.0}, {}),
    CaseScore("Task91_One", "one_1", {"organ": 0.5}, {}),
    CaseScore(
        "Task92_Two", "two_0", {"rim": 0.0, "core": NAN}, {"rim": 4.5, "core": 0.0}
    ),
    CaseScore("Task92_Two", "two_2", {"rim": 0.25, "core": NAN}, {"core": 0.0}),
]
WITH_SURFACES = [
    CaseScore("Task91_One", "one_0", {"organ": 1.0}, {}, {"organ": 0.0}, {"organ": 1}),
    CaseScore("Task91_One", "one_1", {"organ": 0}, {}, {"organ": NAN}, {"organ": 0}),
]


@pytest.fixture
def read(tmp_path):
    """Reads a file with the given content."""

    def read_content(content):
        path = tmp_path / "dice.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return scores_csv.read(path)

    return read_content


def test_a_row_per_case_and_class():
    assert scores_csv.to_csv(SCORES).splitlines() == [
        "domain,case,class,dice,false_positive_ml",
        "Task91_One,one_0,organ,1.000000,",
        "Task91_One,one_1,organ,0.500000,",
        "Task92_Two,two_0,rim,0.000000,4.500000",
        "Task92_Two,two_0,core,,0.000000",
        "Task92_Two,two_2,rim,0.250000,",
        "Task92_Two,two_2,core,,0.000000",
    ]


def test_columns_of_surfaces():
    assert scores_csv.to_csv([SCORES[0], *WITH_SURFACES[1:]]).splitlines() == [
        "domain,case,class,dice,false_positive_ml,hd95_mm,surface_dice",
        "Task91_One,one_0,organ,1.000000,,,",
        "Task91_One,one_1,organ,0.000000,,,0.000000",
    ]


@pytest.mark.parametrize("scores", [SCORES, WITH_SURFACES])
def test_read_as_written(read, scores):
    # NaN equals NaN as text.
    found = str(read(scores_csv.to_csv(scores))).replace(".0", "")
    assert found == str(scores).replace(".0", "")


def test_names_with_commas_and_quotation_marks(read):
    scores = [CaseScore('a,"b"', "c,d", {'e"': 0.5}, {})]
    assert read(scores_csv.to_csv(scores)) == scores


def test_scores_of_release_0_1_0_have_no_volumes(read):
    (score,) = read("domain,case,class,dice\na,b,c,0.5\n")
    assert score == CaseScore("a", "b", {"c": 0.5}, {})


def test_blank_lines_are_ignored(read):
    scores = read("domain,case,class,dice,false_positive_ml\n\na,b,c,0.5,\n\n\n")
    assert scores == [CaseScore("a", "b", {"c": 0.5}, {})]


HEAD = "domain,case,class,dice,false_positive_ml\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", r"dice\.csv: expected the columns domain, case, class, dice.*none"),
        (HEAD, r"expected at least one row. Received: none"),
        ("case,class,dice\na,b,1\n", r"columns.* Received: case, class, dice"),
        (HEAD.replace("ml", "l"), r"Received: .*, false_positive_l$"),
        (HEAD + "a,b,c,0.5\n", r"line 2: expected 5 cells. Received: 4"),
        (HEAD + "a,b,c,0.5,,\n", r"line 2: expected 5 cells. Received: 6"),
        (HEAD + "a,b,c,x,\n", r"line 2: dice: expected a number from 0 to 1.*'x'"),
        (HEAD + "a,b,c,50,\n", r"line 2: dice: expected a number from 0 to 1.*'50'"),
        (
            f"{HEAD[:-1]},hd95_mm,surface_dice\na,b,c,1,,90,95\n",
            r"line 2: surface_dice: expected a number from 0 to 1\. .*'95'",
        ),
        (HEAD + "a,b,c,nan,\n", r"line 2: dice: expected a number.*'nan'"),
        (HEAD + "a,b,c,,inf\n", r"line 2: false_positive_ml: .* from 0\. .*'inf'"),
        (HEAD + "a,b,c,,-1\n", r"line 2: false_positive_ml: .* from 0\. .*'-1'"),
        (HEAD + 2 * "a,b,c,1,\n", r"line 3: expected one row .* a, b, c again"),
        (HEAD + 'a,b,"c,1,\n', r"line 2: expected CSV"),
        (HEAD.encode("utf-16"), r"dice\.csv: expected scores.*in UTF-8"),
    ],
)
def test_invalid_files(read, content, words):
    with pytest.raises(InputError, match=words):
        read(content)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no\.csv: expected scores.*no such file"):
        scores_csv.read(tmp_path / "no.csv")
