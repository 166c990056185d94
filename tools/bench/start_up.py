"""Measures the time from launch to the first training step of every domain.

    python -m tools.bench.start_up --output=start_up.json

A new process imports its library, builds the universal network of five domains and
takes one step of each. Ours compiles a step per domain; PyTorch runs eagerly. Batches
are in memory, so that reading data is not included.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import Contender, Worker
from tools.bench.networks import make_our_steps, make_torch_steps
from tools.bench.setting import NUM_CLASSES, Setting

DOMAINS = tuple(range(len(NUM_CLASSES)))
COLUMNS = (
    reporting.CONTENDER,
    reporting.Column("event", "event"),
    reporting.Column("seconds", "s since launch", ".2f"),
    reporting.Column("time_ratio", "÷ ours", ".2f"),
    reporting.Column("peak_bytes", "peak GB", ".2f", 1e-9),
)


def benchmark(
    setting: Setting, layouts: Sequence[str], *, threads: int
) -> reporting.Report:
    """Launches each contender once, one after another."""
    contenders = [
        Contender("ours", make_our_steps, {"setting": setting, "domains": DOMAINS}),
        *bench_flags.torch_contenders(
            make_torch_steps, layouts, setting=setting, domains=DOMAINS
        ),
    ]
    rows, ours = [], {}
    for contender in contenders:
        for event, seconds, peak_bytes in launch(contender, len(DOMAINS), threads):
            ours.setdefault(event, seconds)
            rows.append(
                {
                    "contender": contender.name,
                    "event": event,
                    "seconds": seconds,
                    "time_ratio": seconds / ours[event],
                    "peak_bytes": peak_bytes,
                }
            )
    size = "×".join(map(str, (setting.batch_size, *setting.patch_size)))
    note = f"Batches of {size}; one launch per contender."
    return reporting.Report("start_up", COLUMNS, rows, [note])


def launch(
    contender: Contender, runs: int, threads: int
) -> list[tuple[str, float, int]]:
    """Starts a contender's process and runs its task.

    Returns:
        (event, seconds since launch, peak memory in bytes) of each event, in order.
    """
    started = time.perf_counter()
    with Worker(contender, threads) as worker:
        events = [("network built", time.perf_counter() - started, worker.start_bytes)]
        for index in range(runs):
            _, peak_bytes = worker.run()
            seconds = time.perf_counter() - started
            events.append((f"step of domain {index}", seconds, peak_bytes))
    return events


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags()
    bench_flags.define_network_flags(patch_size=64)


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    return benchmark(
        bench_flags.cubic_setting(),
        bench_flags.torch_layouts(),
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
