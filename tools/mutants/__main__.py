"""Changes single lines of the code at random and counts how many changes tests detect.

    python -m tools.mutants --work_dir=DIR --count=60

There are three steps, each of which resumes where it left off: finding the lines that
each test file runs (each file alone, with coverage); drawing mutants of these lines,
using the seed; and running, for each mutant, the test files that run its line, the
fastest first, until one fails. With --all_tests, surviving mutants are tried again with
all tests. Mutants are made in copies of the last commit in DIR; the working tree is not
touched.

A mutant that behaves like the original code is equivalent: no test can detect it.
Equivalent mutants have to be found among the survivors by hand.
"""

from __future__ import annotations

import pathlib

from pydantic import Field

from tools.mutants import trying
from u2net_tf import command
from u2net_tf.config.base import Config
from u2net_tf.schema import Size


class MutantsConfig(Config):
    """Settings of `tools.mutants`."""

    work_dir: str = Field(description="Folder for copies of the code and the results.")
    count: Size = Field(60, description="Number of mutants.")
    seed: int = Field(
        0, ge=0, description="Seed of the random generator that draws the mutants."
    )
    num_workers: int = Field(
        2, ge=1, description="Number of test files, or mutants, to run in parallel."
    )
    all_tests: bool = Field(False, description="Run all tests on surviving mutants.")


def main(config: MutantsConfig) -> None:
    """Draws mutants, tries each and prints those that survive."""
    work = pathlib.Path(config.work_dir).resolve()
    checkouts = [
        trying.Checkout(work / f"code{number}") for number in range(config.num_workers)
    ]
    for checkout in checkouts:
        checkout.create()
    lines = trying.lines_by_test(
        checkouts[0],
        work / "lines",
        num_workers=config.num_workers,
        progress=command.progress_bar,
    )
    mutants = trying.draw_mutants(
        checkouts[0].folder, lines, count=config.count, seed=config.seed
    )
    record = trying.Record(work / f"seed{config.seed}.json")
    trying.try_mutants(
        checkouts, mutants, lines, record=record, progress=command.progress_bar
    )
    if config.all_tests:
        trying.try_all_tests(
            checkouts[0],
            [mutant for mutant in mutants if record.survived(mutant)],
            record=record,
            num_workers=config.num_workers,
            progress=command.progress_bar,
        )
    survivors = [mutant for mutant in mutants if record.survived(mutant)]
    for mutant in survivors:
        print(f"{record.outcomes[str(mutant)]}: {mutant}")
    print(
        f"{len(mutants) - len(survivors)} of {len(mutants)} mutants were killed; "
        f"{record.path} lists the tests that failed"
    )


def run() -> None:
    """Runs the command."""
    command.start(main, MutantsConfig)


if __name__ == "__main__":
    run()
