"""What tests of several parts share: scans on disk, commands, the real data."""

import json
import os
import pathlib
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder of the real scans; skips where it is missing."""
    folder = os.environ.get("U2NET_REAL_DATA") or ROOT.parent / "shared" / "data"
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        pytest.skip(f"no real scans in {folder} (U2NET_REAL_DATA names another folder)")
    return folder


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
            text=True,
            timeout=300,
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
