"""Commands and advice that the demonstration prints."""

import pathlib
import shlex

import pytest

from tools import demo

ROOT = pathlib.Path(__file__).parents[1] / "artefacts" / "0.1.0"


@pytest.fixture
def commands(monkeypatch):
    """Records the flags by command, in place of running it."""
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
    assert list(map(str, predict["input"])) == [f"{where}/imagesTr/y.nii.gz"]
    drawn = commands["u2net_tf.draw_overlays"]
    assert drawn["image"] == [f"{where}/imagesTr"]
    assert drawn["reference"] == [f"{where}/labelsTr"]
    assert drawn["plan"] == pathlib.Path("out", "plan.json")


def test_all_modalities_of_a_case_are_predicted(tmp_path, write_dataset, commands):
    folder = write_dataset(tmp_path / "A", ["x"], modalities=("T2", "ADC"))
    images = [folder / "imagesTr" / f"x_000{channel}.nii.gz" for channel in (0, 1)]
    images[0].parent.mkdir()
    for path in images:
        path.touch()
    domain = {"name": "A", "raw_dir": str(folder), "train": [], "test": ["x"]}
    demo._predict_one(domain, pathlib.Path("out"))
    assert commands["u2net_tf.predict"]["input"] == images


@pytest.fixture
def steps(monkeypatch):
    """Replaces all steps of the demonstration."""
    monkeypatch.setattr(demo, "_prepare", lambda *_: ROOT / "plan.json")
    for name in ("_run", "_predict_one"):
        monkeypatch.setattr(demo, name, lambda *_, **__: "the table")
    monkeypatch.setattr(demo, "_draw", lambda *_: ["a picture"])


@pytest.mark.parametrize(("num", "flagfile"), [(1, "independent"), (2, "universal")])
def test_advice_for_own_scans(tmp_path, write_dataset, steps, capsys, num, flagfile):
    for name in "AB"[:num]:
        write_dataset(tmp_path / "raw" / name, ["x"])
    demo.main(demo.DemoConfig(output_dir="own dir", raw_dir=str(tmp_path / "raw")))
    advice, table, again = capsys.readouterr().out.partition("the table")
    assert advice.startswith(
        "This demonstration trains a toy network for a few minutes"
    )
    assert advice.strip() in again
    plan, convert, train, evaluate = (
        shlex.split(line) for line in advice.strip().splitlines()[-4:]
    )
    assert train[:4] == ["python", "-m", "u2net_tf.train", f"--flagfile={flagfile}"]
    assert "--model_dir=own dir/full/model" in train
    # Each command reads the output of the previous one.
    assert plan[4].partition("=")[2] == convert[3].partition("=")[2]
    assert convert[4] == train[4] == "--data_dir=own dir/full/shards"
    assert train[5] == evaluate[3]


def test_no_advice_for_synthetic_scans(steps, capsys):
    demo.main(demo.DemoConfig())
    assert "toy network" not in capsys.readouterr().out
