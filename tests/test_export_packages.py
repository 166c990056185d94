"""Packages of the extra `export` change nothing else when they are imported."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = """
from absl import logging

logging.use_absl_handler()
from u2net_tf.export_packages import import_package

import_package("openvino")
logging.warning("still logged with time and place")
"""


def test_openvino_leaves_the_handler_of_absl():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    line = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"W.* <string>:8\] still logged .*", line), line
