"""Fixtures that tests of several packages share: scans, commands, the real data."""

import collections
import dataclasses
import gc
import json
import locale
import os
import pathlib
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from command_server import arguments_of, checked
from command_session import tensorflow_server

from u2net_tf.plan.domains import Plan

# Set before a test imports them: onnxruntime and OpenVINO would send usage data.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules["openvino_telemetry"] = None
# Graphs consist of many objects: by default, collections are frequent and take long.
gc.set_threshold(50_000, 20, 50)


def flush_nothing(descriptor):
    """Replaces `os.fsync`, for which tests that train wait long on a slow disk.

    No test can find out what reached the disk; `power_cuts.py` records the calls.
    """
    os.fstat(descriptor if isinstance(descriptor, int) else descriptor.fileno())


os.fsync = flush_nothing

ROOT = pathlib.Path(__file__).parent.parent
# Seconds that each test file took; `make test-seconds` writes it.
SECONDS = pathlib.Path(__file__).parent / "seconds.json"


def pytest_addoption(parser):
    parser.addoption(
        "--record-seconds",
        action="store_true",
        help=f"Write the seconds of each test file to {SECONDS.name}.",
    )


def pytest_collection_modifyitems(items):
    """Puts the slowest files first, so that the workers end together.

    With --dist=loadfile --no-loadscope-reorder, pytest-xdist hands them out in this
    order. A file without a record may take long.
    """
    seconds = json.loads(SECONDS.read_text(encoding="utf-8"))

    def rank(item):
        name = item.path.relative_to(ROOT).as_posix()
        return -seconds.get(name, float("inf")), name

    items.sort(key=rank)


class SecondsRecorder:
    """Adds up the seconds of the tests of each file, over all workers."""

    def __init__(self):
        self._seconds = collections.Counter()

    def pytest_runtest_logreport(self, report):
        self._seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_sessionfinish(self, exitstatus):
        if exitstatus:
            return
        rows = {name: round(value, 1) for name, value in sorted(self._seconds.items())}
        SECONDS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def pytest_configure(config):
    # In a parallel run only in the controller, which receives every report.
    if config.getoption("--record-seconds") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SecondsRecorder())


@pytest.fixture(scope="module", autouse=True)
def frozen_garbage():
    """TensorFlow keeps every graph, and each collection would traverse them all."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_locale():
    """Writing DICOM sets the locale to C, after which files are read as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


def _use_plain_implementation():
    """Avoids compilation by XLA, which takes seconds for a network.

    For tests that do not depend on how the network is executed.
    """
    from u2net_tf.networks import ops

    with ops.use_implementation("plain"):
        yield


plain_implementation = pytest.fixture(_use_plain_implementation)
# For the `pytestmark` of a file whose shared fixtures use it as well.
plain_implementation_in_module = pytest.fixture(
    _use_plain_implementation, scope="module"
)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder of the real scans; skips the test if it is missing."""
    folder = os.environ.get("U2NET_REAL_DATA") or ROOT.parent / "shared" / "data"
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        pytest.skip(f"no real scans in {folder} (U2NET_REAL_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def few_real_cases(real_data, tmp_path_factory) -> pathlib.Path:
    """The real datasets with at most two cases each; scans are linked, not copied."""
    raw_dir = tmp_path_factory.mktemp("few")
    for source in sorted(path.parent for path in real_data.glob("*/dataset.json")):
        content = json.loads((source / "dataset.json").read_text())
        content["training"] = content["training"][:2]
        (raw_dir / source.name).mkdir()
        (raw_dir / source.name / "dataset.json").write_text(json.dumps(content))
        for part in ("imagesTr", "labelsTr"):
            (raw_dir / source.name / part).symlink_to(source / part)
    return raw_dir


@pytest.fixture(scope="session")
def run_command():
    """Runs `python -m MODULE --name=value …`."""

    def run(module, status=0, **flags):
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments_of(flags)],
            cwd=ROOT,
            capture_output=True,
            # Not the locale's encoding: GDCM sets the locale to C when writing DICOM.
            encoding="utf-8",
            timeout=1700,
        )
        return checked(done, status)

    return run


@pytest.fixture(scope="session")
def run_warm():
    """Like `run_command`, but forked from a process that has imported TensorFlow."""

    def run(module, status=0, **flags):
        done = tensorflow_server().run(module, *arguments_of(flags))
        return checked(done, status)

    return run


@pytest.fixture(scope="session")
def write_nifti():
    """Writes a (z, y, x) array as NIfTI, in RAS+ or with the given affine."""

    def write(path, array, spacing_mm=(1, 1, 1), affine=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        if affine is None:
            affine = np.diag([*spacing_mm[::-1], 1.0])
        image = nib.Nifti1Image(np.asarray(array).T, affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
        return path

    return write


@pytest.fixture(scope="session")
def write_dataset():
    """Writes the `dataset.json` of a folder with these cases."""

    def write(folder, cases, labels=("background", "organ"), modalities=("MRI",)):
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "modality": {str(i): name for i, name in enumerate(modalities)},
            "labels": {str(i): name for i, name in enumerate(labels)},
            "training": [
                {
                    "image": f"./imagesTr/{case}.nii.gz",
                    "label": f"./labelsTr/{case}.nii.gz",
                }
                for case in cases
            ],
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return write


@dataclasses.dataclass(frozen=True)
class TinyData:
    """Two domains of a few small cases, raw and converted; see `toy.py`."""

    raw_dir: pathlib.Path
    data_dir: pathlib.Path
    plan: Plan


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> TinyData:
    """Scans of `toy.PLAN` and their shards; tests must not change them."""
    import toy
    from in_process import InProcess

    from data_prep.config import ConversionConfig
    from data_prep.convert import convert_domains

    folder = tmp_path_factory.mktemp("tiny")
    plan = toy.write_scans(folder / "raw")
    settings = ConversionConfig(data_dir=str(folder / "data"))
    convert_domains.convert(plan, settings, executor=InProcess())
    return TinyData(folder / "raw", folder / "data", plan)
