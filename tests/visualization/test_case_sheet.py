"""Sheets of cases: their outlines, colours, proportions and names."""

import dataclasses

import numpy as np
import pytest
from matplotlib import colors, image
from matplotlib.text import Text

from u2net_tf.visualization import case_sheet
from u2net_tf.visualization.case_sheet import Panel, draw_case_sheet
from u2net_tf.visualization.thumbnails import UNLISTED, Thumbnail
from u2net_tf.volumes.class_colours import CLASS_COLOURS

RED, BLUE = (colors.to_rgb(colour) for colour in CLASS_COLOURS[:2])
DARK_RED = colors.to_rgb("#cc0000")


def make_panel(name="one", box=np.s_[10:20, 10:20], value=1, **changes):
    classes = np.zeros((40, 40), np.uint16)
    classes[box] = value
    grey = np.full((40, 40), 90, np.uint8)
    thumbnail = Thumbnail(grey, classes, 1.0, 2, 9, True)
    return Panel(name, "note", False, dataclasses.replace(thumbnail, **changes))


def draw(tmp_path, *panels, classes=("a", "b"), title="title"):
    draw_case_sheet(panels, classes, tmp_path / "sheet.png", title=title)
    return image.imread(tmp_path / "sheet.png")[..., :3]


def pixels_of(picture, colour):
    return np.nonzero(np.abs(picture - np.array(colour)).max(axis=-1) < 0.1)


def columns(picture):
    return np.array_split(picture, case_sheet.NUM_COLUMNS, axis=1)


def test_each_case_has_its_labels_in_their_colours(tmp_path):
    body = draw(tmp_path, make_panel(), make_panel(value=2))[:-60]
    first, second, *others = columns(body)
    assert len(pixels_of(first, RED)[0]) > 50
    assert len(pixels_of(second, BLUE)[0]) > 50
    assert not len(pixels_of(first, BLUE)[0]) + len(pixels_of(second, RED)[0])
    assert all((part[100:] == 1).all() for part in others)


@pytest.mark.parametrize("aspect", [1.0, 0.5])
def test_pixels_have_their_physical_shape(tmp_path, aspect):
    body = draw(tmp_path, make_panel(aspect=aspect))[:-60]
    rows, cols = pixels_of(body, RED)
    assert np.ptp(rows) / np.ptp(cols) == pytest.approx(aspect, rel=0.08)


@pytest.fixture
def texts(monkeypatch):
    """Drawn text -> its colour."""
    found = {}
    draw_text = Text.draw

    def spy(self, *arguments, **options):
        found[self.get_text()] = self.get_color()
        return draw_text(self, *arguments, **options)

    monkeypatch.setattr(Text, "draw", spy)
    return found


def test_names_are_shown_literally(tmp_path, texts):
    name = "a_very_long_name_of_a_case_" * 2 + "$x_{1$"
    faulty = dataclasses.replace(make_panel("脑"), is_faulty=True)
    draw(
        tmp_path,
        make_panel(name),
        faulty,
        make_panel(has_labels=False),
        classes=("_$", "b"),
        title="first\nsecond $",
    )
    shown = "".join(texts).replace("\n", "")
    assert name in shown
    assert "first\nsecond $" in texts
    assert texts["脑\nnote"] == "#cc0000"
    assert "slice 3 of 9, no label map" in texts
    assert any(text.endswith("_$") for text in texts)


def test_values_without_a_class_are_white_and_reported(tmp_path, texts):
    body = draw(tmp_path, make_panel(value=UNLISTED))[:-60]
    # An area within the grey slice.
    inside = columns(body)[0][130:200, 60:160]
    assert len(pixels_of(inside, (1, 1, 1))[0]) > 20
    assert any(text.endswith("value without a class") for text in texts)


def test_a_long_legend_counts_the_rest(tmp_path, texts):
    classes = np.arange(1600, dtype=np.uint16).reshape(40, 40) % 41
    panel = make_panel(classes=np.repeat(classes, 1, axis=0))
    draw(tmp_path, panel, classes=[f"c{i}" for i in range(1, 41)])
    assert "and c25, c26, c27, c28, c29 and 11 more" in texts
