import pathlib
import subprocess
import sys

from table import TABLE

HERE = pathlib.Path(__file__).parent


def test_every_row_on_two_devices_equals_one():
    """In a process of its own: devices are made before TensorFlow starts."""
    done = subprocess.run(
        [sys.executable, HERE / "two_devices.py"],
        cwd=HERE.parents[1],
        capture_output=True,
        encoding="utf-8",
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == list(TABLE)
