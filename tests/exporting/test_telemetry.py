"""OpenVINO sends no usage data."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import sys

import numpy

events = []
WATCHED = ("socket.", "http.client.", "urllib.", "subprocess.", "os.fork", "os.posix_")


def note(event, arguments):
    if event.startswith(WATCHED):
        events.append(event)


sys.addaudithook(note)
from u2net_tf.export_packages import import_package

openvino = import_package("openvino")
opset = openvino.opset13
number = opset.parameter([1], openvino.Type.f32)
model = openvino.Model([opset.add(number, number)], [number], "double")
openvino.save_model(model, sys.argv[1])
compiled = openvino.Core().compile_model(model, "CPU")
assert compiled([numpy.float32([2])])[0] == [4]
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
print(sorted(set(events)))
"""


def test_openvino_opens_no_connection(tmp_path):
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("needs the extra `export`")
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model.xml")],
        cwd=ROOT,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == "[]"
    # Its telemetry would store the user id that it sends there.
    assert not list(home.iterdir())
    assert (tmp_path / "model.xml").is_file()
