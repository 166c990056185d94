import pytest

from u2net_tf.wording import duration, quantity


@pytest.mark.parametrize(
    ("count", "nouns", "expected"),
    [
        (0, ("case",), "0 cases"),
        (1, ("case",), "1 case"),
        (2, ("case",), "2 cases"),
        (1, ("modality", "modalities"), "1 modality"),
        (2, ("modality", "modalities"), "2 modalities"),
    ],
)
def test_quantity(count, nouns, expected):
    assert quantity(count, *nouns) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (600, "10 min"),
        (719, "11 min"),
        (3600, "1 h"),
        (4859, "1 h 20 min"),
        (24 * 3600, "1 d"),
        (51 * 3600 + 1800, "2 d 3 h"),
    ],
)
def test_duration(seconds, expected):
    assert duration(seconds) == expected
