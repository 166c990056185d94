import dataclasses
import sys

import numpy as np
import pytest

from u2net_tf.errors import InputError, StoppedError
from u2net_tf.visualization import figures, paired_scores
from u2net_tf.visualization.paired_scores import Panel, draw_paired_scores

PANEL = Panel(
    "Task_1\n$rim$", ["a", "b$", "c", "d"], [10, 50, 70, 90], [20, 50, 40, 95]
)


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws panels; returns the figure."""
    pytest.importorskip("matplotlib", reason="the extra pictures")
    saved = []
    save = figures.save_figure

    def spy(figure, output):
        saved.append(figure)
        save(figure, output)

    monkeypatch.setattr(paired_scores.figures, "save_figure", spy)

    def draw_panels(*panels, **options):
        output = tmp_path / "out.png"
        draw_paired_scores(panels, output, **{"measure": "Dice %"} | options)
        assert output.read_bytes().startswith(b"\x89PNG")
        return saved.pop()

    return draw_panels


def points_of(axis):
    (points,) = axis.collections
    return points


def colours_of(axis):
    red, _, blue = points_of(axis).get_facecolors()[:, :3].T
    return [
        "blue" if b > r else "red" if r > b else "grey"
        for r, b in zip(red, blue, strict=True)
    ]


def test_candidate_over_baseline(draw):
    figure = draw(PANEL)
    (axis,) = figure.axes
    expected = np.transpose([PANEL.baseline, PANEL.candidate])
    np.testing.assert_array_equal(points_of(axis).get_offsets(), expected)
    assert axis.get_title() == PANEL.title
    # A name may contain "$".
    texts = [axis.title, *axis.texts]
    assert not any(text.get_parse_math() for text in texts)
    assert axis.get_xlim() == axis.get_ylim()
    (diagonal,) = axis.lines
    np.testing.assert_array_equal(diagonal.get_xdata(), axis.get_xlim())
    np.testing.assert_array_equal(diagonal.get_ydata(), axis.get_ylim())
    low, high = axis.get_xlim()
    assert low < 10
    assert high > 95
    assert figure.get_supxlabel() == "baseline: Dice %"
    assert figure.get_supylabel() == "candidate: Dice %"


def test_the_cases_that_changed_most_are_named(draw):
    """Of those that changed at all, next to their points."""
    (axis,) = draw(PANEL).axes
    assert {(text.get_text(), text.xy) for text in axis.texts} == {
        ("c", (70, 40)),
        ("a", (10, 20)),
    }
    # Towards the middle of the panel.
    sides = {text.get_text(): text.get_horizontalalignment() for text in axis.texts}
    assert sides == {"c": "right", "a": "left"}
    (axis,) = draw(Panel("t", ["a", "b"], [1, 2], [1, 2])).axes
    assert not axis.texts


def test_rounding_errors_are_no_changes(draw):
    """Such as those of two groups that have the same scores in another order."""
    first, second = 100 * (0.1 + 0.2 + 0.3) / 3, 100 * (0.3 + 0.2 + 0.1) / 3
    assert first != second
    (axis,) = draw(Panel("t", ["a", "b"], [first, second], [second, first])).axes
    assert colours_of(axis) == ["grey", "grey"]
    assert not axis.texts
    assert np.ptp(axis.get_xlim()) > 1


@pytest.mark.parametrize(
    ("lower_is_better", "colours", "side"),
    [
        (False, ["blue", "grey", "red", "blue"], "above"),
        (True, ["red", "grey", "blue", "red"], "below"),
    ],
)
def test_better_cases_are_blue(draw, lower_is_better, colours, side):
    figure = draw(PANEL, lower_is_better=lower_is_better)
    assert colours_of(figure.axes[0]) == colours
    assert f"{side} the diagonal" in figure.get_suptitle()


def test_long_names_fit_into_the_panels(draw):
    """Whether of domains, classes or cases; the panels are as large as with others."""
    title, names = f"Task_{'d' * 90}\n{'c' * 90}", [f"{'n' * 90}{i}" for i in range(4)]
    panels = [dataclasses.replace(PANEL, title=title, names=names)] * 6
    figure, other = draw(*panels), draw(*[PANEL] * 6)
    for axis, expected in zip(figure.axes[:6], other.axes, strict=False):
        width = axis.get_window_extent().width
        assert width > 0.95 * expected.get_window_extent().width
        # Without touching the next title.
        assert axis.title.get_window_extent().width < 1.15 * width
        assert {text.get_text()[-1] for text in axis.texts} == {"0", "2"}
        for text in axis.texts:
            assert text.get_window_extent().width < 0.55 * width


@pytest.mark.parametrize(
    ("number", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (6, 2, 4)]
)
def test_a_panel_per_class(draw, number, rows, columns):
    figure = draw(*[PANEL] * number)
    assert [axis.axison for axis in figure.axes] == [True] * number + [False] * (
        rows * columns - number
    )


def test_a_single_case_without_a_change(draw):
    (axis,) = draw(Panel("t", ["a"], [50], [50])).axes
    assert axis.get_xlim()[0] < 50 < axis.get_xlim()[1]


def test_only_png(tmp_path):
    with pytest.raises(InputError, match=r"`output`: expected FILE.png"):
        draw_paired_scores([PANEL], tmp_path / "out.pdf", measure="Dice %")


def test_needs_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(StoppedError, match=r"u2net-tf\[pictures\]"):
        draw_paired_scores([PANEL], tmp_path / "out.png", measure="Dice %")
