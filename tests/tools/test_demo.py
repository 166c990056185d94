"""Commands and advice that the demonstration prints."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

from tools import demo
from u2net_tf.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
RELEASE = ROOT / "tests" / "artefacts" / "0.1.0"


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


class TestCheckPlan:
    @pytest.fixture
    def raw(self, tmp_path, write_dataset):
        """Scans of domain A, and of domain B, which is a link to elsewhere."""
        write_dataset(tmp_path / "disk" / "raw" / "A", ["x"])
        write_dataset(tmp_path / "elsewhere" / "B", ["x"])
        raw = tmp_path / "disk" / "raw"
        (raw / "B").symlink_to(tmp_path / "elsewhere" / "B")
        (tmp_path / "link").symlink_to(tmp_path / "disk")
        return raw

    @staticmethod
    def check(tmp_path, raw_dir, *folders):
        path = tmp_path / "plan.json"
        domains = [{"raw_dir": str(folder)} for folder in folders]
        path.write_text(json.dumps({"domains": domains}))
        demo._check_plan(path, raw_dir)

    def test_the_same_scans_with_and_without_links(self, raw, tmp_path):
        linked = tmp_path / "link" / "raw"
        for folder in (raw, linked):
            self.check(tmp_path, linked, folder / "A", folder / "B")
            self.check(tmp_path, raw, folder / "A", folder / "B")
            self.check(tmp_path, linked / "A", folder / "A")

    def test_other_scans_are_refused(self, raw, tmp_path):
        for folder in (tmp_path / "elsewhere", tmp_path / "link" / "raw" / "A"):
            with pytest.raises(InputError, match=r"plan\.json: expected a plan of the"):
                self.check(tmp_path, folder, raw / "A", raw / "B")


@pytest.fixture
def steps(monkeypatch):
    """Replaces all steps of the demonstration."""
    monkeypatch.setattr(demo, "_prepare", lambda *_: RELEASE / "plan.json")
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


# Takes some time to end after a signal, as training does to save its state.
SLOW_TO_STOP = """
import signal, time

received = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: received.append(number))
print("ready")
for _ in range(6000):
    if not received:
        time.sleep(0.01)
time.sleep(0.5)
print("saved after", *(signal.Signals(number).name for number in received))
raise SystemExit(1)
"""
RUN = """
from tools import demo
from u2net_tf import stop_signals

with stop_signals.raised():
    try:
        demo._run("slow_to_stop")
    except stop_signals.SignalInterrupt as interrupt:
        print("ended by", interrupt.number.name)
"""


@pytest.mark.parametrize(
    ("number", "send"),
    # Ctrl-C reaches all processes of the terminal.
    [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_signal_stops_the_command_first(tmp_path, number, send):
    (tmp_path / "slow_to_stop.py").write_text(SLOW_TO_STOP)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    with process:
        assert "ready\n" in process.stdout
        send(process.pid, number)
        rest = process.stdout.read().splitlines()
    assert rest == [f"saved after {number.name}", f"ended by {number.name}"]
