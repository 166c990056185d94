"""Without TensorFlow, commands that need it fail in one line, and the others work."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import toy
from command_server import CommandServer

from u2net_tf import machine
from u2net_tf.errors import StoppedError
from u2net_tf.plan.plan_file import plan_to_json

MISSING = (
    "error: TensorFlow is required but not installed: pip install u2net-tf, or with "
    "CUDA 'u2net-tf[gpu]'\n"
)


@pytest.fixture(scope="module")
def server():
    with CommandServer("without_tensorflow") as server:
        yield server


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("data_prep.convert", ["--plan=x", "--data_dir=x"]),
        ("u2net_tf.train", ["--data_dir=x", "--model_dir=x"]),
        (
            "u2net_tf.adapt",
            ["--data_dir=x", "--model_dir=x", "--domain=x", "--from=x"],
        ),
        ("u2net_tf.compose", ["--models=x", "--model_dir=x"]),
        ("u2net_tf.export", ["--model_dir=x", "--output=x"]),
        ("u2net_tf.pack", ["--model_dir=x", "--output=x.u2net"]),
        ("u2net_tf.adapter", ["add", "--model_dir=x", "--input=x"]),
        ("u2net_tf.certify", ["--before=x", "--after=x"]),
        ("u2net_tf.evaluate", ["--model_dir=x"]),
        ("u2net_tf.complexity", []),
        (
            "u2net_tf.show_augmentations",
            ["--data_dir=x", "--domain=x", "--output=x.png"],
        ),
    ],
)
def test_command_names_what_to_install(server, module, arguments):
    done = server.run(module, *arguments)
    assert done.returncode == 1
    assert done.stderr == MISSING
    assert done.stdout == ""


def test_verify_names_what_to_install(server, tiny_data):
    done = server.run("data_prep.verify", f"--data_dir={tiny_data.data_dir}")
    assert done.stderr == MISSING


def test_porting_names_what_to_install(server, tiny_data, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(plan_to_json(tiny_data.plan), encoding="utf-8")
    model_dir = tmp_path / "model"
    arguments = [f"--plan={plan}", "--weights=x", f"--model_dir={model_dir}"]
    done = server.run("u2net_tf.port_torch_weights", *arguments, "--pools=1,0,1")
    assert done.stderr == MISSING
    assert not model_dir.exists()


def test_prediction_with_a_folder_suggests_a_model_file(server, tmp_path):
    given = (f"--model={tmp_path}", "--domain=x", f"--input={tmp_path}", "--output=x")
    done = server.run("u2net_tf.predict", *given)
    assert done.returncode == 1
    assert done.stderr == (
        f"{MISSING[:-1]}; {tmp_path} is a folder written by training, which only "
        "TensorFlow can run. On a machine with TensorFlow, `python -m u2net_tf.pack` "
        "converts it to a file that does not need TensorFlow\n"
    )


# Runs a command and lists its audit events of network access and subprocesses.
WATCHING = """
import json
import runpy
import sys

WATCHED = ("socket.", "http.client.", "urllib.", "subprocess.", "os.fork", "os.posix_")
events = []


def note(event, arguments):
    if event.startswith(WATCHED):
        events.append(event)


for name in ("tensorflow", "keras"):
    sys.modules[name] = None
sys.addaudithook(note)
try:
    runpy.run_module("u2net_tf.predict", run_name="__main__", alter_sys=True)
finally:
    print(json.dumps(sorted(set(events))))
"""


# The host's name is part of a lock's name. urllib3, which pydicom imports if it is
# installed, checks whether it can bind a local address.
HARMLESS = {"socket.gethostname", "socket.__new__", "socket.bind"}


def predict_watched(python, model, runtime, scan, output, home, harmless=HARMLESS):
    """Predicts without TensorFlow or network access; returns the label map."""
    home.mkdir()
    arguments = (
        f"--model={model}",
        f"--runtime={runtime}",
        f"--domain={toy.ONE.name}",
        f"--input={scan}",
        f"--output={output}",
    )
    done = subprocess.run(
        [python, "-c", WATCHING, *arguments],
        cwd=pathlib.Path(__file__).parents[1],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) <= harmless
    # Both runtimes would store the user id that they send there.
    assert not list(home.iterdir())
    return np.asarray(nib.load(output / scan.name).dataobj)


@pytest.fixture
def model_file(tmp_path):
    pytest.importorskip("onnx", reason="makes the model; needs the extra `export`")
    import packed

    return packed.write(tmp_path / "organs.u2net", packed.make_members())


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_prediction_works_and_sends_nothing(model_file, tiny_data, tmp_path, runtime):
    if importlib.util.find_spec(runtime) is None:
        pytest.skip("needs the extra `export`")
    scan = tiny_data.raw_dir / toy.ONE.name / "imagesTr" / "one_0.nii.gz"
    given = (model_file, runtime, scan, tmp_path / "out", tmp_path / "home")
    labels = predict_watched(sys.executable, *given)
    assert labels.shape == nib.load(scan).shape
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.slow
def test_prediction_where_tensorflow_is_not_installed(model_file, tiny_data, tmp_path):
    """In the environment that the README describes."""
    python = os.environ.get("U2NET_RUNTIME_PYTHON", "")
    if not python:
        pytest.skip("U2NET_RUNTIME_PYTHON (Python without TensorFlow) is not set")
    missing = "import importlib.util; print(importlib.util.find_spec('tensorflow'))"
    found = subprocess.run([python, "-c", missing], capture_output=True, text=True)
    assert found.stdout == "None\n", found.stderr
    scan = tiny_data.raw_dir / toy.ONE.name / "imagesTr" / "one_0.nii.gz"
    given = (model_file, "auto", scan)
    # No socket is opened, not even an unused one.
    harmless = {"socket.gethostname"}
    folders = (tmp_path / "out", tmp_path / "home")
    labels = predict_watched(python, *given, *folders, harmless)
    if importlib.util.find_spec("openvino") is not None:
        given += (tmp_path / "here", tmp_path / "other_home")
        expected = predict_watched(sys.executable, *given)
        np.testing.assert_array_equal(labels, expected)


def test_survey_and_plan_work(server, tiny_data, tmp_path):
    survey, plan = tmp_path / "survey", tmp_path / "plan.json"
    given = (f"--raw_dir={tiny_data.raw_dir}", f"--output_dir={survey}")
    done = server.run("data_prep.survey", *given)
    assert done.returncode == 0, done.stderr
    given = (f"--survey={survey}", f"--output={plan}")
    done = server.run("data_prep.plan", *given)
    assert done.returncode == 0, done.stderr
    assert plan.is_file()


def test_score_and_compare_work(server, tiny_data, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(plan_to_json(tiny_data.plan), encoding="utf-8")
    done = server.run(
        "u2net_tf.score",
        f"--predictions={tiny_data.raw_dir / toy.ONE.name / 'labelsTr'}",
        f"--domains={toy.ONE.name}",
        f"--plan={plan}",
        f"--output_dir={tmp_path / 'scores'}",
    )
    assert done.returncode == 0, done.stderr
    assert "1 label map scored" in done.stdout
    folders = (f"--{name}={tmp_path / 'scores'}" for name in ("baseline", "candidate"))
    done = server.run("u2net_tf.compare", *folders)
    assert done.returncode == 0, done.stderr
    assert toy.ONE.name in done.stdout


def test_an_imported_tensorflow_is_not_searched_for(monkeypatch):
    machine.require_tensorflow()
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoppedError, match="TensorFlow is required"):
        machine.require_tensorflow()
    # It has been imported already.
    machine.import_tensorflow()
