"""Curves of a run: reading, drawing and errors."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import toy
from matplotlib import colors, image

from u2net_tf import plot_training
from u2net_tf.config.visualization import CurvesConfig
from u2net_tf.models import loading
from u2net_tf.visualization import curves, figures

ARTEFACTS = pathlib.Path(__file__).parents[1] / "artefacts" / "0.1.0" / "models"

HEAD = "epoch,step,learning_rate,loss,loss_moving_average,loss/CT,loss/MR"
LOG = f"""{HEAD},dice/CT/organ,dice/MR/head,dice/MR/tail
1,10,0.001,1.5,1.5,1.6,1.4,,,
2,20,0.001,1.2,1.45,1.3,1.1,0.40,0.30,0.20
3,30,0.001,1.0,1.40,1.1,0.9,,,
4,40,0.001,0.8,1.30,0.9,0.7,0.70,0.60,nan
"""


def _write(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "training.csv").write_text(text, encoding="utf-8")
    return folder


def _draw(tmp_path, text):
    output = tmp_path / "curves.png"
    curves.draw_curves(_write(tmp_path / "model", text), output)
    return image.imread(output)[..., :3]


def _count(picture, colour):
    return int((np.abs(picture - colors.to_rgb(colour)).max(axis=-1) < 0.1).sum())


def test_empty_cells_are_skipped(tmp_path):
    found = curves.read_curves(_write(tmp_path, LOG) / "training.csv")
    assert found["loss/CT"] == [(10, 1.6), (20, 1.3), (30, 1.1), (40, 0.9)]
    assert found["dice/CT/organ"] == [(20, 0.4), (40, 0.7)]
    assert "step" not in found


def test_a_resumed_run_overwrites_its_steps(tmp_path):
    text = LOG + "3,30,0.001,9,9,9,9,,,\n"
    found = curves.read_curves(_write(tmp_path, text) / "training.csv")
    assert found["loss/CT"] == [(10, 1.6), (20, 1.3), (30, 9), (40, 0.9)]


def test_a_truncated_line_is_read_partially(tmp_path):
    text = LOG + "5,50,0.001,0.7"
    found = curves.read_curves(_write(tmp_path, text) / "training.csv")
    assert found["loss"][-1] == (50, 0.7)
    assert found["loss/CT"][-1] == (40, 0.9)


@pytest.mark.parametrize(
    ("splits", "title", "first", "last"),
    [
        ({}, "Dice during training", "CT: organ", "MR: tail"),
        ({"CT": "test", "MR": "test"}, "Dice of test cases", "CT: organ", "MR: tail"),
        (
            {"CT": "validation", "MR": "test"},
            "Dice during training",
            "CT: organ (validation cases)",
            "MR: tail (test cases)",
        ),
        ({"MR": "test"}, "Dice during training", "CT: organ", "MR: tail (test cases)"),
    ],
)
def test_names_the_split(tmp_path, monkeypatch, splits, title, first, last):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, _: drawn.append(figure))
    folder = _write(tmp_path / "model", LOG)
    curves.draw_curves(folder, tmp_path / "curves.png", splits=splits)
    axis = drawn[0].axes[1]
    labels = [text.get_text()[1:] for text in axis.get_legend().get_texts()]
    assert (axis.get_title(), labels[0], labels[-1]) == (title, first, last)


def test_names_may_contain_signs_of_matplotlib(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, _: drawn.append(figure))
    text = LOG.replace("CT", "_CT").replace("MR", r"$\frac")
    curves.draw_curves(_write(tmp_path / "model", text), tmp_path / "curves.png")
    for axis in drawn[0].axes:
        texts = axis.get_legend().get_texts()
        assert {text.get_text()[1:4] for text in texts} >= {"_CT", r"$\f"}
        assert not any(text.get_parse_math() for text in texts)


def test_command_reads_the_splits_from_the_checkpoint(tmp_path, monkeypatch):
    passed = {}
    monkeypatch.setattr(
        curves, "draw_curves", lambda *_, splits: passed.update(splits=splits)
    )
    config = CurvesConfig(model_dir=str(ARTEFACTS / "separable"), output="a.png")
    plot_training.main(config)
    assert passed["splits"] == dict.fromkeys(["Task91_One", "Task92_Two"], "validation")
    plot_training.main(config.with_changes(model_dir=str(tmp_path)))
    assert passed["splits"] == {}
    loading.save_model(tmp_path, *toy.make_model([toy.TWO]))
    plot_training.main(config.with_changes(model_dir=str(tmp_path)))
    assert passed["splits"] == {"Task92_Two": "test"}


def test_losses_are_on_the_left_and_dice_on_the_right(tmp_path):
    left, right = np.array_split(_draw(tmp_path, LOG), 2, axis=1)
    for colour in ("C0", "C1"):
        assert _count(left, colour) > 100
        assert _count(right, colour) > 100


def test_before_the_first_validation_the_right_side_is_empty(tmp_path):
    text = f"{HEAD}\n1,10,0.001,1.5,1.5,1.6,1.4\n"
    left, right = np.array_split(_draw(tmp_path, text), 2, axis=1)
    # A single point is drawn as a dot.
    assert _count(left, "C0") > 5
    assert _count(right, "C0") == 0


def test_a_domain_without_losses_still_has_its_dice(tmp_path):
    text = "step,dice/CT/organ\n1,0.5\n2,0.6\n"
    left, right = np.array_split(_draw(tmp_path, text), 2, axis=1)
    assert _count(left, "C0") == 0
    assert _count(right, "C0") > 100


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("epoch,loss\n1,2\n", "expected a column 'step'"),
        (f"{HEAD}\n", "the header only"),
        ("", "expected a column 'step'"),
        ("step,loss\n1,0.5\n2,high\n", "line 3.*high"),
        ("step,loss\n,0.5\n", "line 2"),
    ],
)
def test_an_invalid_file_is_reported(tmp_path, text, found):
    with pytest.raises(ValueError, match=rf"training\.csv.*{found}"):
        _draw(tmp_path, text)
    assert not (tmp_path / "curves.png").exists()


def test_output_must_be_a_png(tmp_path):
    with pytest.raises(ValueError, match=r"curves\.svg"):
        curves.draw_curves(_write(tmp_path / "model", LOG), tmp_path / "curves.svg")


def _run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "u2net_tf.plot_training", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_flags_reach_the_picture(tmp_path):
    output = tmp_path / "new" / "curves.png"
    model_dir = _write(tmp_path / "model", LOG)
    done = _run(f"--model_dir={model_dir}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert str(output) in done.stdout
    assert _count(image.imread(output)[..., :3], "C0") > 200


def test_a_folder_of_independent_runs_is_an_error_that_names_them(tmp_path):
    run = _write(tmp_path / "Task91_One", LOG)
    with pytest.raises(FileNotFoundError, match=re.escape(f"but runs in {run}")):
        curves.read_curves(tmp_path / "training.csv")


def test_a_missing_file_is_an_error_of_one_line(tmp_path):
    done = _run(f"--model_dir={tmp_path}", f"--output={tmp_path}/curves.png")
    assert done.returncode != 0
    assert f"Received: no {tmp_path}/training.csv" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
