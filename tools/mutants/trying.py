"""Makes mutants in a copy of the code and runs the tests of their lines."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Sequence

import coverage

from tools.mutants.changes import Mutant, mutants_of
from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.progress import Progress, silent

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("u2net_tf", "data_prep")
# A mutant may loop for ever.
LIMIT_SECONDS = 900


class Workplace:
    """A copy of the last commit in which mutants are made and tests are run.

    Args:
      folder: where the copy lies.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def make(self) -> None:
        """Copies the last commit, unless the copy is there."""
        if self.folder.exists():
            return
        git = ["git", "-C", str(ROOT)]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [*git, "worktree", "prune"], check=True, stdout=subprocess.DEVNULL
        )
        subprocess.run(
            [*git, "worktree", "add", "--quiet", "--detach", str(self.folder), "HEAD"],
            check=True,
        )
        # Tests find the real scans beside the project, as in the working tree.
        shared, beside = ROOT.parent / "shared", self.folder.parent / "shared"
        if shared.is_dir() and not beside.exists():
            beside.symlink_to(shared.resolve())

    def passes(self, tests: Sequence[str], *options: str) -> bool:
        """Whether tests pass; what takes too long, does not.

        Args:
          tests: test files; all if empty.
          *options: of pytest.
        """
        run = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                [*run, *options, *tests],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def lines_of_tests(
    place: Workplace,
    results: pathlib.Path,
    *,
    num_workers: int,
    progress: Progress = silent,
) -> dict[str, dict[str, list[int]]]:
    """Which lines each test file runs, in its own process and in those it starts.

    Args:
      place: where the tests run.
      results: folder for a JSON file per test file, which is not run again.
      num_workers: test files that run at a time.
      progress: shows how many test files are done.

    Returns:
      Test file -> source file -> lines.
    """
    listed = sorted(place.folder.glob("tests/**/test_*.py"))
    tests = [path.relative_to(place.folder).as_posix() for path in listed]

    def measure(test: str) -> dict[str, list[int]]:
        path = results / f"{test.replace('/', '.')}.json"
        if not path.is_file():
            data = results / f"{test.replace('/', '.')}.coverage"
            _run_with_coverage(place.folder, test, data)
            files.write_text(path, json.dumps(_read_coverage(place.folder, data)))
        return json.loads(path.read_text(encoding="utf-8"))

    results.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
        found = progress(
            pool.map(measure, tests), "coverage", total=len(tests), unit="file"
        )
        return dict(zip(tests, found, strict=True))


def _run_with_coverage(folder: pathlib.Path, test: str, data: pathlib.Path) -> None:
    run = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    subprocess.run(
        [*run, "--cov", "--cov-report=", test],
        cwd=folder,
        env={**os.environ, "COVERAGE_FILE": str(data)},
        stdout=subprocess.DEVNULL,
        check=False,
    )


def _read_coverage(folder: pathlib.Path, data: pathlib.Path) -> dict[str, list[int]]:
    if not data.is_file():
        # A file of slow tests alone.
        return {}
    measured = coverage.CoverageData(basename=str(data))
    measured.read()
    found = {}
    for name in measured.measured_files():
        path = pathlib.Path(name)
        if path.is_relative_to(folder):
            relative = path.relative_to(folder).as_posix()
            if relative.startswith(PACKAGES):
                found[relative] = sorted(measured.lines(name) or [])
    data.unlink()
    return found


def draw_mutants(
    folder: pathlib.Path,
    lines: dict[str, dict[str, list[int]]],
    *,
    count: int,
    seed: int,
) -> list[Mutant]:
    """Draws mutants of lines that tests run: a line first, then one of its mutants.

    Args:
      folder: root of the code.
      lines: as `lines_of_tests` returns them.
      count: how many.
      seed: seed of the draw.

    Raises:
      InputError: if there are fewer lines with a mutant.
    """
    executed = {
        (path, n) for found in lines.values() for path in found for n in found[path]
    }
    by_line: dict[tuple[str, int], list[Mutant]] = {}
    for path in sorted({path for path, _ in executed}):
        source = (folder / path).read_text(encoding="utf-8")
        for mutant in mutants_of(source, path):
            if (path, mutant.line) in executed:
                by_line.setdefault((path, mutant.line), []).append(mutant)
    if len(by_line) < count:
        raise InputError("`count`", expected=f"at most {len(by_line)}", received=count)
    generator = random.Random(seed)
    chosen = generator.sample(sorted(by_line), count)
    return [generator.choice(by_line[place]) for place in chosen]


def outcome(
    place: Workplace,
    mutant: Mutant,
    lines: dict[str, dict[str, list[int]]],
    seconds: dict[str, float],
) -> str:
    """Says which test file notices a mutant, or "survived".

    Args:
      place: where the mutant is made, and unmade afterwards.
      mutant: the mutant.
      lines: as `lines_of_tests` returns them.
      seconds: test file -> how long it takes.
    """
    path = place.folder / mutant.path
    source = path.read_text(encoding="utf-8")
    changed = source.splitlines()
    changed[mutant.line - 1] = mutant.after
    tests = [
        test
        for test, found in lines.items()
        if mutant.line in found.get(mutant.path, ())
    ]
    try:
        path.write_text("\n".join([*changed, ""]), encoding="utf-8")
        for test in sorted(tests, key=lambda name: seconds.get(name, 0.0)):
            if not place.passes([test], "-n0"):
                return test
        everything = ("--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")
        return "survived" if place.passes([], *everything) else "all tests together"
    finally:
        path.write_text(source, encoding="utf-8")
