"""Changes single lines of the code at random and counts how many changes tests notice.

    python -m tools.mutants --work_dir=DIR --count=60

Three steps, each of which resumes where it left off: which lines each test file runs
(every file alone, with coverage), the mutants (drawn from the seed, on lines that some
file runs), and for each mutant the test files that run its line, the quickest first,
until one fails. What survives is run once more against all tests. Mutants are made in
a copy of the last commit, in DIR; the working tree is not touched.

A mutant that computes the same as the code is equivalent: no test can notice it. Those
are for people to find, among the survivors.
"""

from __future__ import annotations

import json
import pathlib

from pydantic import Field

from tools.mutants import trying
from u2net_tf import command, files
from u2net_tf.config.base import Config
from u2net_tf.schema import Size


class MutantsConfig(Config):
    """Settings of `tools.mutants`."""

    work_dir: str = Field(description="Folder for a copy of the code and the results.")
    count: Size = Field(60, description="Number of mutants.")
    seed: int = Field(0, ge=0, description="Seed that the mutants are drawn with.")
    num_workers: int = Field(2, ge=1, description="Test files that run at a time.")


def main(config: MutantsConfig) -> None:
    """Draws mutants, tries each and prints those that survive."""
    work = pathlib.Path(config.work_dir).resolve()
    place = trying.Workplace(work / "code")
    place.make()
    lines = trying.lines_of_tests(
        place,
        work / "lines",
        num_workers=config.num_workers,
        progress=command.progress_bar,
    )
    mutants = trying.draw_mutants(
        place.folder, lines, count=config.count, seed=config.seed
    )
    recorded = place.folder / "tests" / "seconds.json"
    seconds = json.loads(recorded.read_text(encoding="utf-8"))
    results = work / f"seed{config.seed}.json"
    known = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    for mutant in command.progress_bar(mutants, "mutants", unit="mutant"):
        if str(mutant) not in known:
            known[str(mutant)] = trying.outcome(place, mutant, lines, seconds)
            files.write_text(results, json.dumps(known, indent=1, ensure_ascii=False))
    survivors = [mutant for mutant in mutants if known[str(mutant)] == "survived"]
    for mutant in survivors:
        print(f"survived: {mutant}")
    print(
        f"{len(mutants) - len(survivors)} of {len(mutants)} mutants were noticed; "
        f"{results} says by which tests"
    )


def run() -> None:
    """Entry point."""
    command.start(main, MutantsConfig)


if __name__ == "__main__":
    run()
