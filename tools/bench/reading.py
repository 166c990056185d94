"""Measures reading: bytes and time per patch, and the memory used by many domains.

    python -m tools.bench.reading --output=reading.json

"volumes" draws patches of large volumes and varies the number of patches cropped from
each volume read. "domains" draws a batch from each of many small domains and reports
the memory used in addition to TensorFlow's. There is no augmentation, so that only
reading is measured; files are in the page cache of the operating system.
"""

from __future__ import annotations

import math
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner, synthetic_shards
from tools.bench.measuring import Contender, Task, measure
from u2net_tf import command, command_flags, machine

if TYPE_CHECKING:
    from u2net_tf.plan.domains import Domain
    from u2net_tf.shards.manifest import Manifest

PARTS = ("volumes", "domains")
INPUT_OUTPUT = pathlib.Path("/proc/self/io")
COLUMNS = (
    reporting.Column("part", "part"),
    reporting.Column("domains", "domains"),
    reporting.Column("patches_per_volume", "patches per volume"),
    reporting.Column("bytes_per_patch", "MB read per patch", ".1f", 1e-6),
    reporting.Column("patches_per_second", "patches/s", ".1f"),
    reporting.Column("peak_bytes", "peak GB", ".2f", 1e-9),
    reporting.Column("added_bytes", "above TensorFlow GB", ".2f", 1e-9),
)
# Edge of the volumes of "domains", relative to that of the patches.
SMALL_VOLUME = 1.5


def bytes_read() -> int:
    """Returns the bytes that this process has read from files so far, cached or not.

    Raises:
        StoppedError: if the operating system is not Linux.
    """
    if not INPUT_OUTPUT.is_file():
        raise command.StoppedError(
            f"counting bytes read needs Linux: there is no {INPUT_OUTPUT}"
        )
    lines = dict(line.split(":") for line in INPUT_OUTPUT.read_text().splitlines())
    return int(lines["rchar"])


def make_tensorflow() -> Task:
    """Returns the task of a minimal dataset."""
    machine.import_tensorflow()
    import tensorflow as tf

    batches = tf.data.Dataset.range(2**62).batch(2).as_numpy_iterator()
    return Task(lambda: next(batches))


def make_batches(
    domains: Sequence,
    manifests: Sequence,
    settings: Mapping[str, Any],
    num_batches: int,
) -> Task:
    """Returns the task of drawing `num_batches` batches from alternating domains."""
    machine.import_tensorflow()
    from u2net_tf.config.data import DataConfig
    from u2net_tf.input.pipeline import training_dataset

    dataset = training_dataset(domains, manifests, DataConfig(**settings))
    batches = dataset.as_numpy_iterator()

    def run():
        before = bytes_read()
        for _ in range(num_batches):
            next(batches)
        return bytes_read() - before

    return Task(run, lambda count: {"bytes": np.array(count)})


def benchmark_volumes(
    folder: pathlib.Path,
    shape: Sequence[int],
    patch_edge: int,
    choices: Sequence[int],
    *,
    num_patches: int,
    memory_mb: float,
    threads: int,
) -> list[dict[str, Any]]:
    """Draws patches with each of `choices` per volume; 0 selects the default."""
    from u2net_tf.input import buffers

    domain, manifest = synthetic_shards.write_shards(folder, shape, patch_edge)
    chosen = buffers.allocate_buffers(
        manifest,
        buffers.patch_bytes(domain, domain.patch_size),
        cases=domain.train,
        memory_mb=memory_mb,
        num_domains=1,
    ).patches_per_volume
    rows = []
    for choice in choices:
        settings = {
            "data_dir": str(folder),
            "batch_size": 1,
            "input_memory_mb": memory_mb,
            "patches_per_volume": choice,
        }
        measured = _measure(
            Contender(
                "ours",
                make_batches,
                {
                    "domains": [domain],
                    "manifests": [manifest],
                    "settings": settings,
                    "num_batches": num_patches,
                },
            ),
            threads,
        )
        name = f"{choice}" if choice else f"{chosen} (chosen)"
        rows.append(_row("volumes", 1, name, measured, num_patches))
    return rows


def benchmark_domains(
    folder: pathlib.Path,
    patch_edge: int,
    counts: Sequence[int],
    *,
    memory_mb: float,
    threads: int,
) -> list[dict[str, Any]]:
    """Draws a batch of two patches from each domain, for each number of domains."""
    edge = math.ceil(SMALL_VOLUME * patch_edge)
    written: dict[str, tuple[Domain, Manifest]] = {}
    settings = {
        "data_dir": str(folder),
        "batch_size": 2,
        "input_memory_mb": memory_mb,
    }
    alone = _measure(Contender("TensorFlow", make_tensorflow), threads)
    rows = []
    for count in counts:
        names = [f"Task{number:02d}_Bench" for number in range(count)]
        for name in names:
            if name not in written:
                written[name] = synthetic_shards.write_shards(
                    folder, (edge,) * 3, patch_edge, name=name
                )
        measured = _measure(
            Contender(
                "ours",
                make_batches,
                {
                    "domains": [written[name][0] for name in names],
                    "manifests": [written[name][1] for name in names],
                    "settings": settings,
                    "num_batches": count,
                },
            ),
            threads,
        )
        row = _row("domains", count, "1 (chosen)", measured, 2 * count)
        row["added_bytes"] = measured.peak_bytes - alone.peak_bytes
        rows.append(row)
    return rows


def _measure(contender, threads):
    """Measures one run in a new process."""
    (measured,) = measure([contender], runs=1, warm_ups=0, threads=threads)
    return measured


def _row(part, domains, patches_per_volume, measured, num_patches):
    (seconds,) = measured.seconds
    return {
        "part": part,
        "domains": domains,
        "patches_per_volume": patches_per_volume,
        "bytes_per_patch": float(measured.results["bytes"]) / num_patches,
        "patches_per_second": num_patches / seconds,
        "peak_bytes": measured.peak_bytes,
        "added_bytes": None,
    }


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(torch=False)
    flags.DEFINE_multi_enum("part", PARTS, PARTS, "Benchmark to run; may be repeated.")
    flags.DEFINE_list(
        "volume_size", ["700", "512", "512"], "Size of the volumes in voxels, z,y,x."
    )
    flags.DEFINE_integer(
        "patch_size", 128, "Edge of the patches in voxels.", lower_bound=8
    )
    flags.DEFINE_integer("patches", 64, "Patches per run.", lower_bound=1)
    flags.DEFINE_multi_integer(
        "patches_per_volume",
        [1, 4, 8, 0, 16],
        "Patches per volume read; 0 for the default. May be repeated.",
        lower_bound=0,
    )
    flags.DEFINE_multi_integer(
        "domains", [1, 5, 50], "Number of domains; may be repeated.", lower_bound=1
    )
    flags.DEFINE_float(
        "input_memory_mb", 2048, "Memory in MB, as in u2net_tf.train.", lower_bound=1
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    command_flags.required(values["volume_size"])
    shape = command_flags.triple(values["volume_size"], least=values.patch_size)
    threads = bench_flags.num_threads()
    options = {"memory_mb": values.input_memory_mb, "threads": threads}
    rows = []
    machine.import_tensorflow()
    if "volumes" in values.part:
        with tempfile.TemporaryDirectory() as folder:
            rows += benchmark_volumes(
                pathlib.Path(folder),
                shape,
                values.patch_size,
                values.patches_per_volume,
                num_patches=values.patches,
                **options,
            )
    if "domains" in values.part:
        with tempfile.TemporaryDirectory() as folder:
            rows += benchmark_domains(
                pathlib.Path(folder), values.patch_size, values.domains, **options
            )
    edges = "×".join(map(str, shape))
    notes = [
        f"Volumes of {edges} voxels, {synthetic_shards.NUM_CASES} of them, patches of "
        f"{values.patch_size}³, --input_memory_mb={values.input_memory_mb:g}."
    ]
    return reporting.Report("reading", COLUMNS, rows, notes)


if __name__ == "__main__":
    runner.run(define_flags, report)
