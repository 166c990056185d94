"""Measures the memory needed to predict a large scan with many classes.

    python -m tools.bench.many_classes --output=many_classes.json

Predicts a synthetic scan, from its file to a label map, with the code of
`u2net_tf.predict` in a separate process. The probabilities of a window are drawn once
instead of computed by a network, whose memory `tools.bench.inference` measures;
TensorFlow is not loaded. The scan is predicted at its own spacing and resampled to a
coarser one. Fails if the process exceeds `--max_memory_gb`.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.convert import draw_scan
from tools.bench.large_scan import SPACING_MM
from tools.bench.measuring import Contender, Task, measure
from u2net_tf import command, command_flags, files
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.inference import label_maps, memory_budget
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label

COARSE_MM = (1.5, 1.5, 1.5)
COLUMNS = (
    reporting.Column("spacing_mm", "spacing mm z,y,x"),
    reporting.Column("estimated_gb", "estimated GB", ".2f"),
    reporting.Column("peak_bytes", "peak GB", ".2f", 1e-9),
    reporting.Column("all_classes_gb", "all probabilities GB", ".1f"),
    reporting.Column("seconds", "s", ".0f"),
)


class DrawnProbabilities:
    """A `Backend` that returns the same random probabilities for every window.

    Args:
        domain: domain with the patch size and the classes.
    """

    fingerprint, checkpoint, is_exported = "", "", False

    def __init__(self, domain: Domain):
        self.spec = ModelSpec(plan=Plan((domain,)), pools=(1, 1, 1))
        shape = (1, *domain.patch_size, domain.num_classes)
        self._drawn = np.random.default_rng(0).random(shape, np.float32)
        self._drawn /= self._drawn.sum(axis=-1, keepdims=True)

    def predict_windows(
        self, windows: np.ndarray, domain: int, **options: object
    ) -> np.ndarray:
        """Returns class probabilities of a window; see `Backend`."""
        return self._drawn


def make_domain(num_classes: int, patch_size: int, spacing_mm: Sequence[float]):
    """Returns a domain with one modality."""
    labels = [Label(f"class {value}", (value,)) for value in range(num_classes)]
    z, y, x = map(float, spacing_mm)
    return Domain(
        name="Task00_ManyClasses",
        raw_dir="unset",
        modalities=("CT",),
        labels=tuple(labels),
        spacing_mm=(z, y, x),
        median_shape=(patch_size,) * 3,
        patch_size=(patch_size,) * 3,
        pools=(1, 1, 1),
        batch_size=1,
    )


def write_scan(path: pathlib.Path, shape: Sequence[int]) -> None:
    """Writes a scan (z, y, x) in int16."""
    import nibabel as nib

    affine = np.diag([*SPACING_MM[::-1], 1.0])
    scan = draw_scan(shape, seed=0).astype(np.int16)
    with files.errors_name(path):
        nib.save(nib.Nifti1Image(scan.T, affine), path)


def make_prediction(
    domain: Domain, scan: str, output_dir: str, max_memory_gb: float | None
) -> Task:
    """Returns the task of predicting a scan with `predict_scans`."""
    path = pathlib.Path(scan)
    predictor = Predictor(DrawnProbabilities(domain))

    def run() -> dict[str, str]:
        report = label_maps.predict_scans(
            predictor,
            0,
            FoundScans((Scan("scan", (path,)),), {}),
            pathlib.Path(output_dir),
            reading=ReadingConfig(max_memory_gb=max_memory_gb),
            overwrite=True,
        )
        return {name: str(reason) for name, reason in report.skipped.items()}

    return Task(run, lambda skipped: {"skipped": np.array(list(skipped.values()))})


def benchmark(
    folder: pathlib.Path,
    shape: Sequence[int],
    *,
    num_classes: int,
    patch_size: int,
    max_memory_gb: float | None,
    threads: int,
) -> reporting.Report:
    """Measures the prediction of a scan at both spacings."""
    path = folder / "scan.nii"
    write_scan(path, shape)
    rows = []
    for spacing_mm in (SPACING_MM, COARSE_MM):
        domain = make_domain(num_classes, patch_size, spacing_mm)
        contender = Contender(
            "ours",
            make_prediction,
            {
                "domain": domain,
                "scan": str(path),
                "output_dir": str(folder / "out"),
                "max_memory_gb": max_memory_gb,
            },
        )
        (found,) = measure([contender], runs=1, warm_ups=0, threads=threads)
        for reason in found.results["skipped"]:
            raise command.StoppedError(str(reason))
        if max_memory_gb is not None and found.peak_bytes > max_memory_gb * 1e9:
            raise command.StoppedError(
                f"expected at most {max_memory_gb:g} GB. Received: a peak of "
                f"{found.peak_bytes / 1e9:.2f} GB"
            )
        rows.append(
            {
                "spacing_mm": ",".join(f"{size:g}" for size in spacing_mm),
                "estimated_gb": _estimated_gb(path, domain, found.start_bytes),
                "peak_bytes": found.peak_bytes,
                "all_classes_gb": 4e-9 * num_classes * float(np.prod(shape)),
                "seconds": found.median,
            }
        )
    return reporting.Report(
        "many_classes",
        COLUMNS,
        rows,
        [
            f"{num_classes} classes, {'×'.join(map(str, shape))} voxels of "
            f"{'×'.join(f'{size:g}' for size in SPACING_MM)} mm, windows of "
            f"{patch_size}³, --max_memory_gb={max_memory_gb}."
        ],
    )


def _estimated_gb(path: pathlib.Path, domain: Domain, start_bytes: int) -> float:
    """Returns the lowest memory limit with which the scan is accepted."""
    from u2net_tf.inference import case_memory
    from u2net_tf.volumes import images

    spec = ModelSpec(plan=Plan((domain,)), pools=(1, 1, 1))
    need = memory_budget.Need.of_scan(images.load_header(path).grid, domain)
    network = case_memory.network_bytes(spec, 0, 1)
    return (start_bytes + network + need.prediction) / 1e9


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(torch=False)
    flags.DEFINE_list(
        "volume_size", ["400", "512", "512"], "Size of the scan in voxels, z,y,x."
    )
    flags.DEFINE_integer(
        "classes", 60, "Number of classes.", lower_bound=2, upper_bound=256
    )
    flags.DEFINE_integer(
        "patch_size", 128, "Edge of the windows in voxels.", lower_bound=2
    )
    flags.DEFINE_float(
        "max_memory_gb",
        None,
        "Memory limit in GB, as in u2net_tf.predict.",
        lower_bound=1e-3,
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    command_flags.required(values["volume_size"])
    shape = command_flags.triple(values["volume_size"], least=8)
    with tempfile.TemporaryDirectory() as folder:
        return benchmark(
            pathlib.Path(folder),
            shape,
            num_classes=values.classes,
            patch_size=values.patch_size,
            max_memory_gb=values.max_memory_gb,
            threads=bench_flags.num_threads(),
        )


if __name__ == "__main__":
    runner.run(define_flags, report)
