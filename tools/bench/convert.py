"""Compares the speed of preprocessing a CT with the published preprocessing.

    python -m tools.bench.convert --output=convert.json

The published preprocessing uses SimpleITK's cubic B-spline, `numpy.percentile`,
clipping and standardization. Both start from the volume in memory and end with the
image of a record before it is rounded to float16; results are reported only if they
agree. The volume is a noisy ellipsoid, rounded to integers like a CT.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import Contender, Task, check_agreement, measure
from u2net_tf import command_flags

CLIP_PERCENTILES = (2, 98)
# Relative to the largest value; float16, the type of records, has a precision of 5e-4.
TOLERANCE = 1e-5
COLUMNS = (
    reporting.Column("shape", "shape"),
    reporting.Column("new_shape", "resampled"),
    reporting.CONTENDER,
    reporting.Column("cases_per_minute", "cases/min", ".1f"),
    *reporting.TIMES,
    *reporting.MEMORY,
)


def draw_scan(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Draws a body of 40 in air of -1000 with noise, rounded; float32 (z, y, x)."""
    z, y, x = (np.linspace(-1, 1, size, dtype=np.float32) for size in shape)
    inside = y[:, np.newaxis] ** 2 / 0.4 + x**2 / 0.7 < 1
    generator = np.random.default_rng(seed)
    scan = generator.standard_normal(tuple(shape), dtype=np.float32)
    scan *= 15
    scan += np.where(inside, np.float32(40), np.float32(-1000))
    # Makes every plane different.
    scan += 10 * z[:, np.newaxis, np.newaxis]
    return np.rint(scan, out=scan)


def _results(image: np.ndarray) -> dict[str, np.ndarray]:
    return {"standardized": image}


def make_ours(shape: Sequence[int], new_shape: Sequence[int], threads: int) -> Task:
    """Returns the task as performed by `data_prep.convert`."""
    del threads  # always uses one
    from u2net_tf.interpolation.resample import resample
    from u2net_tf.volumes import intensities

    scan = draw_scan(shape)

    def run():
        resampled = resample(scan, tuple(new_shape), "bspline")
        # In place, as in `convert`, unless resampling returned the scan itself.
        out = None if resampled is scan else resampled
        return intensities.standardize(
            resampled, clip_percentiles=CLIP_PERCENTILES, out=out
        )

    return Task(run, _results)


def make_published(
    shape: Sequence[int], new_shape: Sequence[int], threads: int
) -> Task:
    """Returns the task with SimpleITK's B-spline and NumPy, using `threads` threads."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    scan = draw_scan(shape)
    ratios = [old / new for old, new in zip(shape, new_shape, strict=True)][::-1]

    def run():
        image = sitk.GetImageFromArray(scan)
        resampled = sitk.Resample(
            image,
            list(new_shape)[::-1],
            sitk.Transform(),
            sitk.sitkBSpline,
            # Keeps the extent, as ours; the published code keeps the first voxel
            # centre.
            [ratio / 2 - 0.5 for ratio in ratios],
            ratios,
            image.GetDirection(),
            0.0,
            image.GetPixelID(),
        )
        resampled = sitk.GetArrayFromImage(resampled)
        low, high = np.percentile(resampled, CLIP_PERCENTILES)
        clipped = np.clip(resampled, np.float32(low), np.float32(high))
        mean, deviation = clipped.mean(dtype=float), clipped.std(dtype=float)
        return (clipped - np.float32(mean)) / np.float32(deviation)

    return Task(run, _results)


def mean_difference(measurements: Sequence) -> float:
    """Returns the mean absolute difference of the first two, in standard deviations."""
    ours, theirs = (each.results["standardized"] for each in measurements[:2])
    return float(np.abs(ours - theirs).mean(dtype=float))


def benchmark(
    shape: Sequence[int], new_shape: Sequence[int], *, runs: int, threads: int
) -> reporting.Report:
    """Measures resampling from one shape to another."""
    arguments = {"shape": tuple(shape), "new_shape": tuple(new_shape)}
    makers = (
        ("ours", make_ours, 1),
        ("SimpleITK", make_published, 1),
        (f"SimpleITK, {threads} threads", make_published, threads),
    )
    measured = measure(
        [
            Contender(name, make, arguments | {"threads": count})
            for name, make, count in makers[: 2 if threads == 1 else 3]
        ],
        runs=runs,
        threads=1,
    )
    largest = check_agreement(measured, TOLERANCE)
    rows = [
        row | {"cases_per_minute": 60 / row["median_seconds"]}
        for row in reporting.rows_of(
            measured,
            shape="×".join(map(str, shape)),
            new_shape="×".join(map(str, new_shape)),
        )
    ]
    notes = [
        f"Results agree: they differ by at most {largest:.1e} of the largest value, "
        f"by {mean_difference(measured):.1e} standard deviations on average."
    ]
    return reporting.Report("convert", COLUMNS, rows, notes)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_integer("runs", 5, "Timed runs of each contender.", lower_bound=1)
    flags.DEFINE_integer(
        "threads",
        None,
        "Threads of multi-threaded SimpleITK; all cores if not given.",
        lower_bound=1,
    )
    flags.DEFINE_list(
        "shape", ["120", "512", "512"], "Size of the scan in voxels, z,y,x."
    )
    flags.DEFINE_list(
        "new_shape", ["100", "436", "436"], "Size after resampling, z,y,x."
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    holders = [flags.FLAGS[name] for name in ("shape", "new_shape")]
    command_flags.required(*holders)
    return benchmark(
        *(command_flags.triple(holder, least=4) for holder in holders),
        runs=flags.FLAGS.runs,
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
