import pathlib
import subprocess
import sys

import pytest
from table import TABLE

HERE = pathlib.Path(__file__).parent


# Layers, a unit and a network; the rest is slow.
QUICK = ["DomainNorm", "DepthwiseConv3D", "DomainConv3D", "SeparableUnit"]
QUICK += ["DownSample", "U2Net, independent"]
REST = [name for name in TABLE if name not in QUICK]


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(REST, marks=pytest.mark.slow)], ids=["quick", "rest"]
)
def test_rows_on_two_devices_equal_one(names):
    """In a process of its own: devices are made before TensorFlow starts."""
    done = subprocess.run(
        [sys.executable, HERE / "two_devices.py", *names],
        cwd=HERE.parents[1],
        capture_output=True,
        encoding="utf-8",
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == names
