"""What tests of several parts share: scans on disk, commands, the real data."""

import dataclasses
import json
import locale
import os
import pathlib
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from u2net_tf.domains import Plan

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def same_locale():
    """Writing DICOM sets the locale of the process to C, and files read as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder of the real scans; skips where it is missing."""
    folder = os.environ.get("U2NET_REAL_DATA") or ROOT.parent / "shared" / "data"
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        pytest.skip(f"no real scans in {folder} (U2NET_REAL_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def few_real_cases(real_data, tmp_path_factory) -> pathlib.Path:
    """The folders of the real scans with two cases each at most; nothing is copied."""
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
    """Runs `python -m MODULE --name=value …`; underscores and all."""

    def run(module, status=0, **flags):
        arguments = []
        for name, value in flags.items():
            values = value if isinstance(value, list) else [value]
            arguments += [f"--{name}={value}" for value in values]
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            capture_output=True,
            # Not the locale's: GDCM sets that to C when a test writes DICOM.
            encoding="utf-8",
            timeout=900,
        )
        assert done.returncode == status, done.stdout + done.stderr
        # An error is one message, not a traceback.
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def write_nifti():
    """Writes a (z, y, x) array as NIfTI: RAS+, or with an affine of its own."""

    def write(path, array, spacing_mm=(1, 1, 1), affine=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        if affine is None:
            affine = np.diag([*spacing_mm[::-1], 1.0])
        nib.save(nib.Nifti1Image(np.asarray(array).T, affine), path)
        return path

    return write


@pytest.fixture(scope="session")
def write_dataset():
    """Writes the `dataset.json` of a folder that holds these cases."""

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
    """Scans of `toy.PLAN` and their shards; to be left as they are."""
    import toy

    from data_prep import conversion

    folder = tmp_path_factory.mktemp("tiny")
    plan = toy.write_scans(folder / "raw")
    settings = conversion.Settings(data_dir=str(folder / "data"), num_workers=1)
    conversion.convert(plan, [], settings)
    return TinyData(folder / "raw", folder / "data", plan)
