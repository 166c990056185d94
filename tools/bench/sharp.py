"""Compares a training step and a forward pass of UNet# with PyTorch.

    python -m tools.bench.sharp --patch_size=64 --part=step --output=sharp.json

The network has one domain, depth 4 and two classes. A step consists of the forward pass
with all eight heads, Lovász-Softmax plus focal loss of each, backward pass and Adam;
ours uses the `Trainer`. The forward pass computes the logits of the last head. Results
are reported only if all contenders agree in the logits or, for steps, in the first loss
and the norm of its gradient. PyTorch implements the formula literally: up-sample,
concatenate, convolve.
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

# Our variants of a step by name: gradient checkpointing.
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
    """Returns our contenders and those of PyTorch for one of `PARTS`."""
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
    bench_flags.define_size_flags(patch_size=64)
    bench_flags.define_sharp_flags()
    flags.DEFINE_enum("part", "step", PARTS, "Part to measure.")
    flags.DEFINE_boolean(
        "together",
        True,
        "Alternate between contenders; otherwise run one after another.",
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    return benchmark(
        bench_flags.sharp_setting(),
        values.part,
        bench_flags.torch_layouts(),
        runs=values.runs,
        threads=bench_flags.num_threads(),
        together=values.together,
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
