import pytest

from u2net_tf.wording import quantity


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
