"""Runs a benchmark: parses flags, prints a table and writes a JSON file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting
from u2net_tf import command


def run(
    define_flags: Callable[[], None],
    report: Callable[[], reporting.Report],
    *,
    num_threads: Callable[[], int] = bench_flags.num_threads,
) -> None:
    """Parses the flags, measures, prints the report and writes it to `--output`.

    Args:
        define_flags: defines the flags of the benchmark.
        report: runs the benchmark as the flags specify.
        num_threads: returns the threads of each contender for the report; by default
            those of `--threads`.
    """

    # Copies the module name of the benchmark, whose docstring is the help text.
    @functools.wraps(report)
    def main(argv: Sequence[str]) -> None:
        del argv  # flags only; `command.start` has checked
        reporting.publish(report(), flags.FLAGS.output, num_threads())

    define_flags()
    command.start(main)
