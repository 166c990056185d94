import numpy as np
import pytest
from matplotlib import colors, image

from u2net_tf.visualization import figures, preview
from u2net_tf.volumes.class_colours import class_colour
from u2net_tf.volumes.grid import Grid, Volume

NAMES = ("background", "_liver", "$spleen")


@pytest.fixture
def axes(monkeypatch):
    """The panels, title and legend of the last picture."""
    found = {}
    save = figures.save_figure

    def spy(figure, output):
        found["panels"] = figure.axes
        found["title"] = figure.get_suptitle()
        legends = figure.legends
        found["legend"] = [t.get_text() for one in legends for t in one.get_texts()]
        save(figure, output)

    monkeypatch.setattr(figures, "save_figure", spy)
    return found


@pytest.fixture
def scan():
    """A scan whose slices differ, 4 mm apart, and a label map of two boxes."""
    data = np.random.default_rng(0).normal(size=(1, 10, 24, 30)).astype(np.float32)
    grid = Grid("scan", (30, 24, 10), np.eye(4), None, None)
    classes = np.zeros((10, 24, 30), np.uint8)
    classes[6:8, 4:9, 20:26] = 1
    classes[6, 12:14, 3:5] = 2
    return Volume(data, (4.0, 1.0, 1.0), grid), classes


def test_three_planes_with_names(scan, axes, tmp_path):
    volume, classes = scan
    output = tmp_path / "a_preview.png"
    preview.draw_preview(volume, classes, NAMES, output, title="Organ, a")
    assert axes["title"] == "Organ, a"
    captions = [panel.get_xlabel() for panel in axes["panels"]]
    assert captions == [
        "axial, slice 7 of 10",
        "coronal, slice 5 of 24",
        "sagittal, slice 21 of 30",
    ]
    assert [text.strip("\N{ZERO WIDTH SPACE}") for text in axes["legend"]] == [
        "_liver",
        "$spleen",
    ]
    shown = [panel.images[0].get_array() for panel in axes["panels"]]
    # The patient's right is on the left, the front and the head on top.
    np.testing.assert_array_equal(shown[0], volume.data[0, 6, ::-1, ::-1])
    np.testing.assert_array_equal(shown[1], volume.data[0, ::-1, 4, ::-1])
    np.testing.assert_array_equal(shown[2], volume.data[0, ::-1, ::-1, 20])
    assert [panel.get_aspect() for panel in axes["panels"]] == [1, 4, 4]
    picture = image.imread(output)[..., :3]
    for number in (1, 2):
        colour = colors.to_rgb(class_colour(number))
        assert (np.abs(picture - colour).max(axis=-1) < 0.1).sum() > 20


def test_empty_label_map(scan, axes, tmp_path):
    volume, classes = scan
    empty = np.zeros_like(classes)
    preview.draw_preview(volume, empty, NAMES, tmp_path / "a.png", title="a")
    assert axes["title"] == "a: no foreground"
    assert axes["legend"] == []
    assert axes["panels"][0].get_xlabel() == "axial, slice 6 of 10"


@pytest.mark.parametrize("shape", [(1, 40, 40), (2, 3, 300), (300, 3, 2)])
def test_odd_shapes(tmp_path, shape):
    volume = Volume(np.zeros((1, *shape), np.float32), (5.0, 0.5, 0.5), None)
    classes = np.ones(shape, np.uint8)
    preview.draw_preview(volume, classes, NAMES, tmp_path / "a.png", title="a")
    assert (tmp_path / "a.png").is_file()
