"""Measures a training step and a forward pass beside the same network in PyTorch.

    python -m tools.bench.step --patch_sizes=64 --output=step.json

The universal network of five domains. A step is forward, Lovász-Softmax and focal loss,
backward and Adam, ours by the `Trainer`. Nothing is reported unless all give the same
logits or, of a step, the same first loss and norm of its gradient. A patch of 128 takes
PyTorch 90 s and 17 GB per step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import Contender, check_agreement, measure
from tools.bench.networks import (
    make_our_forward,
    make_our_steps,
    make_torch_forward,
    make_torch_steps,
)
from tools.bench.setting import Setting

PARTS = ("forward", "step")
# Ways of ours to take a step, by name: arguments of `U2Net`. Ratios refer to the first.
OURS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "ours, checkpointed": {"gradient_checkpointing": "blocks"},
}
# 35 normalizations in a row amplify what float32 rounds; see tests/parity.
TOLERANCE = 2e-2
# Beyond this, PyTorch fills the memory, and processes follow one another.
LARGEST_TOGETHER = 96
COLUMNS = (
    reporting.Column("batch", "batch"),
    reporting.Column("part", "part"),
    reporting.CONTENDER,
    *reporting.TIMES,
    *reporting.MEMORY,
)


def benchmark(
    settings: Sequence[Setting],
    parts: Sequence[str],
    layouts: Sequence[str],
    *,
    runs: int,
    threads: int,
) -> reporting.Report:
    """Measures each part at each setting."""
    rows, notes = [], []
    for setting in settings:
        size = "×".join(map(str, (setting.batch_size, *setting.patch_size)))
        for part in parts:
            measured = measure(
                contenders(part, setting, layouts),
                runs=runs,
                threads=threads,
                together=max(setting.patch_size) <= LARGEST_TOGETHER,
            )
            largest = check_agreement(measured, TOLERANCE)
            rows += reporting.rows_of(measured, batch=size, part=part)
            if len(measured) > 1:
                what = "logits" if part == "forward" else "losses and gradient norms"
                notes.append(
                    f"{size}: {what} differ by at most {largest:.1e} of the largest."
                )
    return reporting.Report("step", COLUMNS, rows, notes)


def contenders(part: str, setting: Setting, layouts: Sequence[str]) -> list[Contender]:
    """Ours and PyTorch's of one of `PARTS`."""
    theirs = make_torch_forward if part == "forward" else make_torch_steps
    if part == "forward":
        ours = [Contender("ours", make_our_forward, {"setting": setting})]
    else:
        ours = [
            Contender(name, make_our_steps, {"setting": setting, "options": options})
            for name, options in OURS.items()
        ]
    return [*ours, *bench_flags.torch_contenders(theirs, layouts, setting=setting)]


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(runs=5)
    bench_flags.define_network_flags()
    flags.DEFINE_list("patch_sizes", ["64", "128"], "Edges of the patches, voxels.")
    flags.DEFINE_multi_enum(
        "part", PARTS, PARTS, "What to measure; may be repeated, all if not given."
    )


def report() -> reporting.Report:
    """Measures what the flags ask for."""
    values = flags.FLAGS
    options = bench_flags.network_options()
    return benchmark(
        [
            Setting(patch_size=size, **options)
            for size in bench_flags.cubes("patch_sizes", options["pools"])
        ],
        values.part,
        bench_flags.torch_layouts(),
        runs=values.runs,
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
