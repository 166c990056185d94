"""Compares a training step and a forward pass with the same network in PyTorch.

    python -m tools.bench.step --patch_sizes=64 --output=step.json

The network is the universal one of five domains. A step consists of forward pass,
Lovász-Softmax plus focal loss, backward pass and Adam; ours uses the `Trainer`. Results
are reported only if all contenders agree in the logits or, for steps, in the first loss
and the norm of its gradient. With patches of 128³, a step of PyTorch takes 90 s and 17
GB.
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
# Our variants of a step by name: arguments of `U2Net`. Ratios refer to the first.
OURS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "ours, checkpointed": {"gradient_checkpointing": "blocks"},
}
# 60 consecutive normalizations amplify rounding errors of float32; see tests/parity.
TOLERANCE = 2e-2
# With larger patches, PyTorch fills the memory, so that contenders run one by one.
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
    """Returns our contenders and those of PyTorch for one of `PARTS`."""
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
    flags.DEFINE_list("patch_sizes", ["64", "128"], "Edges of the patches in voxels.")
    flags.DEFINE_multi_enum(
        "part", PARTS, PARTS, "Part to measure; may be repeated. Both if not given."
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
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
