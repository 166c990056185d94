"""Changes single lines of the code at random and counts how many changes tests notice.

    python -m tools.mutants --work_dir=DIR --count=60

Three steps, each of which resumes where it left off: which lines each test file runs
(every file alone, with coverage), the mutants (drawn from the seed, on lines that some
file runs), and for each mutant the test files that run its line, the quickest first,
until one fails. With --all_tests, what survived is run once more, against all tests.
Mutants are made in copies of the last commit, in DIR; the working tree is not touched.

A mutant that computes the same as the code is equivalent: no test can notice it. Those
are for people to find, among the survivors.
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
    seed: int = Field(0, ge=0, description="Seed that the mutants are drawn with.")
    num_workers: int = Field(
        2, ge=1, description="Test files, or mutants, that are tried at a time."
    )
    all_tests: bool = Field(
        False, description="Whether what survived is run against all tests."
    )


def main(config: MutantsConfig) -> None:
    """Draws mutants, tries each and prints those that survive."""
    work = pathlib.Path(config.work_dir).resolve()
    places = [
        trying.Workplace(work / f"code{number}") for number in range(config.num_workers)
    ]
    for place in places:
        place.make()
    lines = trying.lines_of_tests(
        places[0],
        work / "lines",
        num_workers=config.num_workers,
        progress=command.progress_bar,
    )
    mutants = trying.draw_mutants(
        places[0].folder, lines, count=config.count, seed=config.seed
    )
    record = trying.Record(work / f"seed{config.seed}.json")
    trying.try_mutants(
        places, mutants, lines, record=record, progress=command.progress_bar
    )
    if config.all_tests:
        trying.try_all_tests(
            places[0],
            [mutant for mutant in mutants if record.survived(mutant)],
            record=record,
            num_workers=config.num_workers,
            progress=command.progress_bar,
        )
    survivors = [mutant for mutant in mutants if record.survived(mutant)]
    for mutant in survivors:
        print(f"{record.outcomes[str(mutant)]}: {mutant}")
    print(
        f"{len(mutants) - len(survivors)} of {len(mutants)} mutants were noticed; "
        f"{record.path} says by which tests"
    )


def run() -> None:
    """Entry point."""
    command.start(main, MutantsConfig)


if __name__ == "__main__":
    run()
