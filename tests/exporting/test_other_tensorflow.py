"""A SavedModel needs only TensorFlow, which may be an older release than ours.

U2NET_OTHER_PYTHON names the interpreter of an environment with TensorFlow and without
this package:

    python3.11 -m venv DIR && DIR/bin/pip install tensorflow==2.20.*
"""

import os
import pathlib
import subprocess

import numpy as np
import pytest
from converted import draw_patches, run_tensorflow
from toy import ONE, TWO, make_model

from u2net_tf.exporting.saved_model import Source, save_saved_model

pytestmark = pytest.mark.slow
SCRIPT = """
import importlib.util
import sys

import numpy
import tensorflow

assert importlib.util.find_spec("u2net_tf") is None
model = tensorflow.saved_model.load(sys.argv[1])
segment = model.signatures[sys.argv[2]]
patches = tensorflow.constant(numpy.load(sys.argv[3]))
numpy.save(sys.argv[4], segment(patches=patches)["probabilities"].numpy())
"""


@pytest.fixture(scope="module")
def other_python():
    if not (path := os.environ.get("U2NET_OTHER_PYTHON")):
        pytest.skip("U2NET_OTHER_PYTHON (another TensorFlow) is not set")
    return pathlib.Path(path)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    spec, network = model
    sources = [Source(network, spec, index, "f") for index in range(2)]
    folder = tmp_path_factory.mktemp("saved") / "1"
    names = save_saved_model(sources, folder)
    assert names == [f"segment_{ONE.name}", f"segment_{TWO.name}"]
    return folder


def test_loads_and_runs(other_python, model, saved, tmp_path):
    spec, network = model
    patches = draw_patches(spec, 1)
    np.save(tmp_path / "patches.npy", patches)
    subprocess.run(
        [
            other_python,
            "-c",
            SCRIPT,
            saved,
            f"segment_{TWO.name}",
            tmp_path / "patches.npy",
            tmp_path / "found.npy",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    expected = run_tensorflow(spec, network, 1, patches)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_saved_model_cli(other_python, model, saved, tmp_path):
    spec, network = model
    patches = draw_patches(spec, 0)
    np.save(tmp_path / "patches.npy", patches)
    subprocess.run(
        [
            other_python.with_name("saved_model_cli"),
            "run",
            f"--dir={saved}",
            "--tag_set=serve",
            f"--signature_def=segment_{ONE.name}",
            f"--inputs=patches={tmp_path / 'patches.npy'}",
            f"--outdir={tmp_path}",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    expected = run_tensorflow(spec, network, 0, patches)
    found = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
