"""Compares the speed of our network with the limits of the machine.

    python -m tools.bench.roofline --output=roofline.json
    python -m tools.bench.roofline --architecture=unet_sharp --output=roofline.json

The limits are measured with a float32 matrix product and a memory copy on all cores.
The lower bounds on operations and traffic of the network are counted, see
`tools.bench.operations`. The bound on the time is the sum over the convolutions, each
limited by either computation or memory. Deep feature maps fit into a cache, which is
faster than memory. The step of a UNet# computes all heads, the forward pass the last.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import networks, reporting, runner, sharp_networks
from tools.bench.measuring import Contender, Measurement, Task, measure
from tools.bench.setting import Setting
from tools.bench.sharp_networks import SharpSetting
from u2net_tf import command, machine

MATRIX_EDGE = 4096
COPY_BYTES = 2**29
# Architecture -> flags that the others do not have.
ARCHITECTURES = {"u2net": ("pools",), "unet_sharp": ("depth", "adapter")}
KINDS = ("depthwise", "pointwise", "strided", "dense")
COLUMNS = (
    reporting.Column("what", "operation"),
    reporting.Column("flops", "GFLOP", ".2f", 1e-9),
    reporting.Column("bytes", "GB", ".2f", 1e-9),
    reporting.Column("least_seconds", "bound s", ".3f"),
    reporting.Column("median_seconds", "measured s", ".3f"),
    reporting.Column("share", "bound ÷ measured %", ".1f", 100.0),
    reporting.Column("flops_per_second", "GFLOP/s", ".1f", 1e-9),
    reporting.Column("bytes_per_second", "GB/s", ".1f", 1e-9),
)


def make_product(library: str, edge: int) -> Task:
    """Returns the task of a square float32 matrix product in the given library."""
    generator = np.random.default_rng(0)
    first, second = generator.random((2, edge, edge), np.float32)
    if library == "NumPy":
        return Task(lambda: first @ second)
    machine.import_tensorflow()
    import tensorflow as tf

    first, second = tf.constant(first), tf.constant(second)
    return Task(lambda: tf.linalg.matmul(first, second))


def make_copy(num_bytes: int, threads: int) -> Task:
    """Returns the task of copying memory, split between threads."""
    source = np.ones(num_bytes, np.uint8)
    target = np.zeros_like(source)
    parts = [np.array_split(array, threads) for array in (target, source)]
    executor = concurrent.futures.ThreadPoolExecutor(threads)

    def copy():
        # NumPy releases the GIL while it copies.
        list(executor.map(np.copyto, *parts))

    return Task(copy)


def benchmark(
    setting: Setting | SharpSetting, *, runs: int, threads: int
) -> reporting.Report:
    """Measures the machine, then our network."""

    def measured(name, make, **arguments) -> Measurement:
        contender = Contender(name, make, arguments)
        return measure([contender], runs=runs, warm_ups=2, threads=threads)[0]

    products = [
        measured(
            f"matrix product, {name}",
            make_product,
            library=name,
            edge=MATRIX_EDGE,
        )
        for name in ("NumPy", "TensorFlow")
    ]
    copy = measured("memory copy", make_copy, num_bytes=COPY_BYTES, threads=threads)
    ours = sharp_networks if isinstance(setting, SharpSetting) else networks
    forward = measured("forward", ours.make_our_forward, setting=setting)
    step = measured("step", ours.make_our_steps, setting=setting)
    rows = [
        *(
            _machine_row(each, 2 * MATRIX_EDGE**3, 3 * MATRIX_EDGE**2 * 4)
            for each in products
        ),
        _machine_row(copy, 0, 2 * COPY_BYTES),
    ]
    peaks = {
        "flops_per_second": max(row["flops_per_second"] for row in rows),
        "bytes_per_second": rows[-1]["bytes_per_second"],
    }
    rows += network_rows(setting, {"forward": forward, "step": step}, peaks)
    size = "×".join(map(str, (setting.batch_size, *setting.patch_size)))
    name = "3D U²-Net"
    if isinstance(setting, SharpSetting):
        name = f"UNet# of depth {setting.depth}, adapter {setting.adapter}"
    note = (
        f"{name}: batch of {size}, domain 0. Copied bytes count twice, as read and "
        "written."
    )
    return reporting.Report("roofline", COLUMNS, rows, [note])


def _machine_row(measured: Measurement, flops: int, traffic: int) -> dict[str, Any]:
    return {
        "what": measured.name,
        "flops": flops,
        "bytes": traffic,
        "least_seconds": None,
        "median_seconds": measured.median,
        "share": None,
        "flops_per_second": flops / measured.median,
        "bytes_per_second": traffic / measured.median,
    }


def network_rows(
    setting: Setting | SharpSetting,
    measured: Mapping[str, Measurement],
    peaks: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Returns rows of forward pass and step, each followed by its kinds of convolution.

    Kinds that the network does not have are left out.

    Args:
        setting: setting of the network.
        measured: measurements of "forward" and "step".
        peaks: `flops_per_second` and `bytes_per_second` of the machine.
    """
    machine.import_tensorflow()
    from tools.bench import operations

    rows = []
    for name, measurement in measured.items():
        backward = name == "step"
        parts = operations.convolutions_of(setting, backward=backward)
        for kind in (None, *KINDS):
            chosen = [part for part in parts if kind in (None, part.kind)]
            if not chosen:
                continue
            count = {"batch_size": setting.batch_size, "backward": backward}
            flops = sum(part.flops(**count) for part in chosen)
            traffic = sum(part.traffic(**count) for part in chosen)
            traffic += operations.adam_traffic(chosen) if backward else 0
            least = operations.min_seconds(chosen, **count, **peaks)
            seconds = measurement.median if kind is None else None
            rows.append(
                {
                    "what": name if kind is None else f"  {kind}",
                    "flops": flops,
                    "bytes": traffic,
                    "least_seconds": least,
                    "median_seconds": seconds,
                    "share": seconds and least / seconds,
                    "flops_per_second": seconds and flops / seconds,
                    "bytes_per_second": seconds and traffic / seconds,
                }
            )
    return rows


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(runs=5, torch=False)
    bench_flags.define_network_flags(patch_size=64)
    bench_flags.define_sharp_flags()
    flags.DEFINE_enum(
        "architecture", "u2net", ARCHITECTURES, "3D U²-Net (u2net) or UNet#."
    )


def _require_own_flags() -> str:
    """Returns the architecture; raises InputError if a flag of another one is set."""
    architecture = flags.FLAGS.architecture
    for other, names in ARCHITECTURES.items():
        for name in names:
            if other != architecture and flags.FLAGS[name].present:
                raise command.InputError(
                    f"`{name}`",
                    expected=f"none, as `architecture` is {architecture}",
                    received=flags.FLAGS[name].value,
                )
    return architecture


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    is_sharp = _require_own_flags() == "unet_sharp"
    return benchmark(
        bench_flags.sharp_setting() if is_sharp else bench_flags.cubic_setting(),
        runs=flags.FLAGS.runs,
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
