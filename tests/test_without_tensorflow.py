"""What needs TensorFlow and does not find it says so in one line; the rest works."""

import pytest
from command_server import CommandServer

from u2net_tf import machine
from u2net_tf.errors import StoppedError
from u2net_tf.plan.plan_file import plan_to_json

MISSING = (
    "error: TensorFlow is needed and not installed: pip install u2net-tf, or with CUDA "
    "'u2net-tf[gpu]'\n"
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
        (
            "u2net_tf.predict",
            ["--model_dir=x", "--domain=x", "--input=x", "--output=x"],
        ),
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


def test_survey_and_plan_work(server, tiny_data, tmp_path):
    survey, plan = tmp_path / "survey", tmp_path / "plan.json"
    given = (f"--raw_dir={tiny_data.raw_dir}", f"--output_dir={survey}")
    done = server.run("data_prep.survey", *given)
    assert done.returncode == 0, done.stderr
    given = (f"--survey={survey}", f"--output={plan}")
    done = server.run("data_prep.plan", *given)
    assert done.returncode == 0, done.stderr
    assert plan.is_file()


def test_what_is_installed_is_not_looked_for_twice(monkeypatch):
    machine.require_tensorflow()
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoppedError, match="TensorFlow is needed"):
        machine.require_tensorflow()
    # It was imported before.
    machine.import_tensorflow()
