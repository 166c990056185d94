import pytest

from u2net_tf.wording import (
    control_characters,
    duration,
    escape_controls,
    quantity,
    shortened,
    three_digits,
)


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
    ("text", "expected"), [("12345", "12345"), ("123456", "12…56"), ("", "")]
)
def test_shortened(text, expected):
    assert shortened(text, 5) == expected
    assert shortened("123456", 4) == "12…6"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.70312, "0.703"),
        (12, "12"),
        (512, "512"),
        (999.4, "999"),
        (999.6, "1000"),
        (1024, "1024"),
        (22026.5, "22026"),
    ],
)
def test_three_digits(value, expected):
    assert three_digits(value) == expected


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


@pytest.mark.parametrize(
    ("text", "controls"),
    [
        ("a\tb\n", []),
        # A no-break space and a joiner, as in the emoji of a health worker.
        ("5\N{NO-BREAK SPACE}mm \N{ZERO WIDTH JOINER}", []),
        ("\x1b[2J\r", ["\x1b", "\r"]),
        ("\x7f\x9b\u2028", ["\x7f", "\x9b", "\u2028"]),
    ],
)
def test_control_characters(text, controls):
    assert control_characters(text) == controls


def test_escape_controls():
    assert escape_controls("a\x1b\tb\n\u2028é") == "a\\u001b\tb\n\\u2028é"
