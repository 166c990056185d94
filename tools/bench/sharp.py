"""Measures a training step and a forward pass of UNet# beside the same in PyTorch.

    python -m tools.bench.sharp --patch_size=64 --part=step --output=sharp.json

One domain, depth 4, two classes. A step is forward with all eight heads, Lovász-Softmax
and focal loss of each, backward and Adam, ours by the `Trainer`; a forward pass ends
with the logits that predict. Nothing is reported unless all give the same logits or, of
a step, the same first loss and norm of its gradient. PyTorch computes the formula as it
is written: up-sample, concatenate, convolve.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import Contender, check_agreement, measure
from tools.bench.sharp_networks import (
    SharpSetting,
    make_our_forward,
    make_our_steps,
    make_torch_forward,
    make_torch_steps,
)
from tools.bench.step import PARTS, TOLERANCE

ADAPTERS = ("none", "separable")
# Ways of ours to take a step, by name: gradient checkpointing.
OURS = {"ours": "none", "ours, checkpointed": "blocks"}
COLUMNS = (
    reporting.Column("batch", "batch"),
    reporting.Column("adapter", "adapter"),
    reporting.Column("part", "part"),
    reporting.CONTENDER,
    *reporting.TIMES,
    *reporting.MEMORY,
)


def benchmark(
    setting: SharpSetting,
    part: str,
    layouts: Sequence[str],
    *,
    runs: int,
    threads: int,
    together: bool,
) -> reporting.Report:
    """Measures one of `PARTS`."""
    measured = measure(
        contenders(part, setting, layouts),
        runs=runs,
        threads=threads,
        together=together,
    )
    largest = check_agreement(measured, TOLERANCE)
    size = "×".join(map(str, (setting.batch_size, *setting.patch_size)))
    rows = reporting.rows_of(measured, batch=size, adapter=setting.adapter, part=part)
    what = "Logits" if part == "forward" else "Losses and gradient norms"
    notes = [f"{what} differ by at most {largest:.1e} of the largest."]
    return reporting.Report("sharp", COLUMNS, rows, notes if len(measured) > 1 else ())


def contenders(
    part: str, setting: SharpSetting, layouts: Sequence[str]
) -> list[Contender]:
    """Ours and PyTorch's of one of `PARTS`."""
    theirs = make_torch_forward if part == "forward" else make_torch_steps
    if part == "forward":
        ours = [Contender("ours", make_our_forward, {"setting": setting})]
    else:
        ours = [
            Contender(
                name,
                make_our_steps,
                {"setting": setting, "gradient_checkpointing": how},
            )
            for name, how in OURS.items()
        ]
    return [*ours, *bench_flags.torch_contenders(theirs, layouts, setting=setting)]


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(runs=3)
    flags.DEFINE_integer(
        "patch_size", 64, "Edge of the patches, voxels.", lower_bound=1
    )
    flags.DEFINE_integer("batch_size", 2, "Patches at a time.", lower_bound=1)
    flags.DEFINE_integer(
        "base_channels", 16, "Channels at full resolution.", lower_bound=1
    )
    flags.DEFINE_integer(
        "depth", 4, "Levels below full resolution.", lower_bound=1, upper_bound=4
    )
    flags.DEFINE_enum("adapter", "none", ADAPTERS, "Units of the nodes.")
    flags.DEFINE_enum("part", "step", PARTS, "What to measure.")
    flags.DEFINE_boolean(
        "together", True, "By turns; otherwise one contender after the other."
    )


def report() -> reporting.Report:
    """Measures what the flags ask for."""
    values = flags.FLAGS
    patch_size = bench_flags.check_patch(
        "patch_size", (values.patch_size,) * 3, (values.depth,) * 3
    )
    setting = SharpSetting(
        patch_size,
        values.batch_size,
        values.depth,
        values.base_channels,
        values.adapter,
    )
    return benchmark(
        setting,
        values.part,
        bench_flags.torch_layouts(),
        runs=values.runs,
        threads=bench_flags.num_threads(),
        together=values.together,
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
