"""`import u2net_tf`: its names, and that it imports nothing else."""

import ast
import importlib
import json
import pathlib
import platform
import re

import nibabel as nib
import numpy as np
import pytest
from command_session import ROOT, python

import u2net_tf

# Prints the packages outside the standard library that were imported.
PROBE = """
import json, sys
before = set(sys.modules)
import u2net_tf
{more}
tops = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(tops - sys.stdlib_module_names)))
"""


def imported(more=""):
    done = python("-c", PROBE.format(more=more))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="oneDNN is enabled on x86-64 only"
)
@pytest.mark.parametrize("chosen", [None, pytest.param("0", marks=pytest.mark.slow)])
def test_tensorflow_uses_onednn_unless_disabled(monkeypatch, chosen):
    source = """
import u2net_tf
from tensorflow.python.util import _pywrap_util_port
print(_pywrap_util_port.IsMklEnabled())
"""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    if chosen is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", chosen)
    done = python("-c", source)
    assert done.stdout == f"{chosen is None}\n", done.stderr


def test_import_loads_no_other_package():
    assert imported() == ["u2net_tf"]
    assert imported("print(u2net_tf.__version__, dir(u2net_tf))") == ["u2net_tf"]


@pytest.mark.parametrize(
    "name", ["load_plan", "TrainConfig", "InputError", "Predictor"]
)
def test_plans_and_settings_need_no_tensorflow(name):
    found = imported(f"u2net_tf.{name}")
    assert not {"tensorflow", "keras"} & set(found)


@pytest.mark.parametrize("name", u2net_tf.__all__)
def test_name_resolves_to_that_of_its_module(name):
    path, _, other = u2net_tf._MODULES[name].partition(":")
    module = importlib.import_module(f"u2net_tf.{path}")
    assert getattr(u2net_tf, name) is getattr(module, other or name)


def test_names_are_listed_and_typed():
    assert u2net_tf.__all__ == sorted(u2net_tf._MODULES)
    assert {*u2net_tf.__all__, "__version__"} == set(dir(u2net_tf))
    tree = ast.parse(pathlib.Path(u2net_tf.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in block.body
        for alias in node.names
    }
    places = {}
    for name, place in u2net_tf._MODULES.items():
        path, _, other = place.partition(":")
        places[name] = f"u2net_tf.{path}.{other or name}"
    assert typed == places


def test_commands_are_modules():
    for name in ("train", "adapt", "compose"):
        module = importlib.import_module(f"u2net_tf.{name}")
        assert getattr(u2net_tf, name) is module


def test_unknown_name():
    with pytest.raises(AttributeError, match=r"'u2net_tf' has no attribute 'nothing'"):
        _ = u2net_tf.nothing


@pytest.mark.parametrize("name", ["U2Net", "load_predictor", "segmentation_loss"])
def test_missing_tensorflow_is_one_line(name):
    missing = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
    done = python("-c", f"{missing}from u2net_tf import {name}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: u2net_tf.{name}: TensorFlow is required but not installed: pip "
        "install u2net-tf, or with CUDA 'u2net-tf[gpu]'"
    )


def test_another_missing_module_is_not_blamed_on_tensorflow(monkeypatch):
    monkeypatch.setitem(u2net_tf._MODULES, "Nothing", "no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = u2net_tf.Nothing


def test_example_of_the_readme(tmp_path, monkeypatch, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall("```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).uniform(1, 9, (35, 50, 36)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), "scan.nii.gz")
    exec(example, {})
    assert nib.load("labels.nii.gz").shape == image.shape
    assert "'Anterior'" in capsys.readouterr().out
