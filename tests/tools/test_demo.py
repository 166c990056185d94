"""The demonstration's commands can be typed where it was started."""

import pathlib

import pytest

from tools import demo


@pytest.fixture
def commands(monkeypatch):
    """The commands that are run -> their flags; nothing is run."""
    found = {}
    monkeypatch.setattr(
        demo, "_run", lambda module, **flags: found.update({module: flags})
    )
    return found


@pytest.mark.parametrize("below", [True, False])
def test_scans_below_the_current_folder_have_relative_paths(
    tmp_path, monkeypatch, write_dataset, commands, below
):
    folder = write_dataset(tmp_path / "raw" / "A", ["x", "y"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path if below else tmp_path / "elsewhere")
    domain = {"name": "A", "raw_dir": str(folder), "train": ["x"], "test": ["y"]}
    demo._predict_one(domain, pathlib.Path("out"))
    demo._draw({"domains": [domain]}, pathlib.Path("out"))
    where = "raw/A" if below else str(folder)
    predict = commands["u2net_tf.predict"]
    assert str(predict["input"]) == f"{where}/imagesTr/y.nii.gz"
    drawn = commands["u2net_tf.draw_overlays"]
    assert drawn["image"] == [f"{where}/imagesTr"]
    assert drawn["reference"] == [f"{where}/labelsTr"]
