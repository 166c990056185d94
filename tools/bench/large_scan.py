"""Measures the memory needed to survey and convert a large CT.

    python -m tools.bench.large_scan --output=large_scan.json

Writes synthetic scans, a body in air with noise, and runs `data_prep.survey`, `plan`
and `convert` on them, the last at the spacing of the scans and at a different one.
Reports the peak memory of the command and of its largest worker, as counted by the
operating system.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from tools.bench import reporting, runner
from tools.bench.convert import draw_scan
from tools.bench.measuring import peak_memory_bytes
from u2net_tf import command, command_flags, files, machine

NAME = "Task00_LargeCT"
SPACING_MM = (1.0, 0.8, 0.8)
NEW_SPACING_MM = (1.25, 0.75, 0.75)
POLL_SECONDS = 0.02
COLUMNS = (
    reporting.Column("command", "command"),
    reporting.Column("spacing_mm", "spacing mm z,y,x"),
    reporting.Column("process_bytes", "command peak GB", ".2f", 1e-9),
    reporting.Column("worker_bytes", "worker peak GB", ".2f", 1e-9),
    reporting.Column("seconds", "s", ".1f"),
)


def write_scans(folder: pathlib.Path, shape: Sequence[int], num_cases: int) -> None:
    """Writes cases (z, y, x) in the layout of the MSD."""
    import nibabel as nib

    middle = tuple(slice(size // 3, 2 * size // 3) for size in shape)
    labels = np.zeros(shape, np.uint8)
    labels[middle] = 1
    affine = np.diag([*SPACING_MM[::-1], 1.0])
    training = []
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(num_cases):
        name = f"case_{number}.nii"
        scan = draw_scan(shape, seed=number).astype(np.int16)
        for part, array in (("imagesTr", scan), ("labelsTr", labels)):
            with files.errors_name(folder / part / name):
                nib.save(nib.Nifti1Image(array.T, affine), folder / part / name)
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": NAME,
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "organ"},
        "training": training,
        "test": [],
    }
    files.write_text(folder / "dataset.json", json.dumps(content))


def measure_command(module: str, *arguments: str) -> tuple[float, int, int]:
    """Runs a command and monitors the memory of its processes.

    Returns:
        The duration in seconds, the peak memory of the command in bytes, and that of
        its largest worker.

    Raises:
        StoppedError: if it fails.
    """
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            for pid in _with_descendants(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), peak_memory_bytes(pid))
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - started
        if process.returncode:
            output.seek(0)
            raise command.StoppedError(f"{module} failed: {output.read()}")
    own = peaks.pop(process.pid)
    return seconds, own, max(peaks.values(), default=0)


def _with_descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for path in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def benchmark(
    folder: pathlib.Path, shape: Sequence[int], *, num_cases: int, workers: int
) -> reporting.Report:
    """Measures each command on scans of this shape."""
    write_scans(folder / "raw" / NAME, shape, num_cases)
    plan = folder / "plan.json"
    rows = []

    def run(
        module: str, *arguments: str, spacing: Sequence[float] = SPACING_MM
    ) -> None:
        seconds, process_bytes, worker_bytes = measure_command(module, *arguments)
        rows.append(
            {
                "command": module,
                "spacing_mm": ",".join(f"{size:g}" for size in spacing),
                "process_bytes": process_bytes,
                "worker_bytes": worker_bytes or None,
                "seconds": seconds,
            }
        )

    number = f"--num_workers={workers}"
    run(
        "data_prep.survey",
        f"--raw_dir={folder / 'raw'}",
        f"--output_dir={folder / 'survey'}",
        number,
    )
    run("data_prep.plan", f"--survey={folder / 'survey'}", f"--output={plan}")
    for name, spacing in (("kept", SPACING_MM), ("resampled", NEW_SPACING_MM)):
        _change_spacing(plan, spacing)
        run(
            "data_prep.convert",
            f"--plan={plan}",
            f"--data_dir={folder / name}",
            number,
            spacing=spacing,
        )
    notes = [
        f"{num_cases} scans of {'×'.join(map(str, shape))} voxels of "
        f"{'×'.join(f'{size:g}' for size in SPACING_MM)} mm, --num_workers={workers}."
    ]
    return reporting.Report("large_scan", COLUMNS, rows, notes)


def _change_spacing(plan: pathlib.Path, spacing_mm: Sequence[float]) -> None:
    content: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8"))
    (domain,) = content["domains"]
    domain["spacing_mm"] = list(spacing_mm)
    files.write_text(plan, json.dumps(content))


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_list(
        "volume_size", ["700", "512", "512"], "Size of the scans in voxels, z,y,x."
    )
    flags.DEFINE_integer("cases", 2, "Number of scans.", lower_bound=2)
    flags.DEFINE_integer("workers", 1, "Workers of survey and convert.", lower_bound=1)


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    command_flags.required(values["volume_size"])
    shape = command_flags.triple(values["volume_size"], least=8)
    with tempfile.TemporaryDirectory() as folder:
        return benchmark(
            pathlib.Path(folder),
            shape,
            num_cases=values.cases,
            workers=values.workers,
        )


if __name__ == "__main__":
    runner.run(define_flags, report, num_threads=machine.num_cores)
