"""Compares the runtimes of `u2net_tf.predict`, from launch to label map.

    python -m tools.bench.prediction --output=prediction.json

Predicts a synthetic scan with a network of one domain and random weights: with
TensorFlow from its model folder, and with OpenVINO and onnxruntime from its model file.
Each run is a new process, so that importing libraries and compiling are part of the
time. Random weights amplify rounding, and so more labels differ than with trained ones.
"""

from __future__ import annotations

import dataclasses
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.large_scan import SPACING_MM, measure_command
from tools.bench.many_classes import make_domain, write_scan
from u2net_tf import command_flags, machine
from u2net_tf.plan.domains import Domain

# The first one is what the others are compared with.
RUNTIMES = ("tensorflow", "openvino", "onnxruntime")
# Standard deviation of the noise that is added to the variables of a new network.
NOISE = 0.02
COLUMNS = (
    reporting.Column("volume", "volume"),
    reporting.Column("patch", "windows of"),
    reporting.Column("runtime", "runtime"),
    reporting.Column("median_seconds", "median s", ".2f"),
    reporting.Column("cpu_seconds", "CPU s", ".2f"),
    reporting.Column("speed_ratio", "times as fast", ".2f"),
    reporting.Column("peak_bytes", "peak GB", ".2f", 1e-9),
    reporting.Column("same_labels_percent", "same labels %", ".4f"),
)


def write_model(folder: pathlib.Path, domain: Domain, base_channels: int) -> None:
    """Writes a network of one domain as a model folder and a model file.

    Noise stands for training: in a new network, all norms have a scale of 1, which
    exporting removes; OpenVINO then no longer recognizes the norms.
    """
    machine.import_tensorflow()
    from u2net_tf.models.build import build_network
    from u2net_tf.models.loading import save_model
    from u2net_tf.models.spec import ModelSpec
    from u2net_tf.plan.domains import Plan

    spec = ModelSpec(
        plan=Plan((domain,)), pools=domain.pools, base_channels=base_channels
    )
    network = build_network(spec)
    generator = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(variable + NOISE * generator.standard_normal(variable.shape))
    save_model(folder / "model", spec, network)
    subprocess.run(
        [
            *(sys.executable, "-m", "u2net_tf.pack"),
            *(f"--model_dir={folder / 'model'}", f"--output={folder / 'model.u2net'}"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )


class Run(NamedTuple):
    """A run of the command.

    Attributes:
        seconds: duration.
        cpu_seconds: CPU time.
        peak_bytes: peak memory.
        labels: the label map.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    labels: np.ndarray


def predict(folder: pathlib.Path, runtime: str, domain: Domain) -> Run:
    """Runs the command once.

    Raises:
        StoppedError: if it fails.
    """
    from u2net_tf.volumes import images

    model = folder / ("model" if runtime == "tensorflow" else "model.u2net")
    before = _cpu_seconds_of_children()
    seconds, peak_bytes, _ = measure_command(
        "u2net_tf.predict",
        f"--model={model}",
        f"--runtime={runtime}",
        f"--domain={domain.name}",
        f"--input={folder / 'scan.nii'}",
        f"--output={folder / runtime}",
        "--overwrite",
    )
    cpu_seconds = _cpu_seconds_of_children() - before
    labels = images.load_image([folder / runtime / "scan.nii.gz"]).data
    return Run(seconds, cpu_seconds, peak_bytes, labels)


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def benchmark(
    folder: pathlib.Path,
    shape: Sequence[int],
    domain: Domain,
    *,
    base_channels: int,
    runtimes: Sequence[str],
    runs: int,
) -> reporting.Report:
    """Measures each runtime on a scan of this shape; runtimes alternate."""
    write_scan(folder / "scan.nii", shape)
    write_model(folder, domain, base_channels)
    found: dict[str, list[Run]] = {
        runtime: [] for runtime in RUNTIMES if runtime in runtimes
    }
    for _ in range(runs):
        for runtime, measured in found.items():
            measured.append(predict(folder, runtime, domain))
    first, *_ = found.values()
    first_median = statistics.median(run.seconds for run in first)
    rows: list[dict[str, Any]] = []
    for runtime, measured in found.items():
        median = statistics.median(run.seconds for run in measured)
        is_same = measured[0].labels == first[0].labels
        rows.append(
            {
                "volume": "×".join(map(str, shape)),
                "patch": "×".join(map(str, domain.patch_size)),
                "runtime": runtime,
                "median_seconds": median,
                "runs_seconds": [run.seconds for run in measured],
                "cpu_seconds": statistics.median(run.cpu_seconds for run in measured),
                "speed_ratio": first_median / median,
                "peak_bytes": max(run.peak_bytes for run in measured),
                "same_labels_percent": 100 * float(np.mean(is_same)),
            }
        )
    return reporting.Report("prediction", COLUMNS, rows)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_integer("runs", 3, "Runs of each runtime.", lower_bound=1)
    flags.DEFINE_list(
        "volume_size", ["128", "320", "320"], "Size of the scan in voxels, z,y,x."
    )
    flags.DEFINE_list(
        "patch_size", ["128", "128", "128"], "Size of the windows in voxels, z,y,x."
    )
    flags.DEFINE_list("pools", ["5", "5", "5"], "Number of times z, y, x are halved.")
    flags.DEFINE_integer(
        "base_channels", 16, "Channels at full resolution.", lower_bound=1
    )
    flags.DEFINE_multi_enum(
        "runtime", list(RUNTIMES), RUNTIMES, "Runtime to measure; may be repeated."
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    shape, patch_size, pools = (
        command_flags.triple(values[name], least=least)
        for name, least in (("volume_size", 1), ("patch_size", 1), ("pools", 0))
    )
    command_flags.required(values["volume_size"], values["patch_size"], values["pools"])
    bench_flags.check_patch("patch_size", patch_size, pools)
    domain = dataclasses.replace(
        make_domain(3, 2, SPACING_MM),
        median_shape=shape,
        patch_size=patch_size,
        pools=pools,
    )
    with tempfile.TemporaryDirectory() as folder:
        return benchmark(
            pathlib.Path(folder),
            shape,
            domain,
            base_channels=values.base_channels,
            runtimes=values.runtime,
            runs=values.runs,
        )


if __name__ == "__main__":
    runner.run(define_flags, report, num_threads=machine.num_cores)
