"""Makes mutants in copies of the code and runs the tests that cover their lines."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

import coverage

from tools.mutants.changes import Mutant, mutants_of
from u2net_tf import files
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.progress import Progress, silent

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("u2net_tf", "data_prep")
# Outcomes of mutants that survived the tests of their line, and all tests.
SURVIVED = ("survived", "survived all tests")
# A mutant may loop forever; the timeout of a single test is much shorter.
LIMIT_SECONDS = 2400
# Exit status of pytest if all tests passed, if some failed, and if none was selected.
_COMPLETE = (0, 1, 5)


class Checkout:
    """A copy of the last commit in which mutants are made and tests are run.

    Args:
      folder: folder of the copy.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def create(self) -> None:
        """Copies the last commit, or removes the mutant of a killed run from a copy."""
        if self.folder.exists():
            restore = ["git", "-C", str(self.folder), "checkout", "--quiet", "--"]
            subprocess.run([*restore, *PACKAGES], check=True)
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
        # Tests look for real scans next to the project, as in the working tree.
        shared, link = ROOT.parent / "shared", self.folder.parent / "shared"
        if shared.is_dir() and not link.exists():
            link.symlink_to(shared.resolve())
        # Normally the slowest files come first, to balance the workers. Here they come
        # last, because the first failure ends the run.
        seconds = self.folder / "tests" / "seconds.json"
        recorded = json.loads(seconds.read_text(encoding="utf-8"))
        negated = {name: -value for name, value in recorded.items()}
        files.write_text(seconds, json.dumps(negated))

    @contextlib.contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """Applies a mutant to the copy within the context."""
        path = self.folder / mutant.path
        source = path.read_text(encoding="utf-8")
        changed = source.splitlines()
        changed[mutant.line - 1] = mutant.after
        try:
            with files.errors_name(path):
                path.write_text("\n".join([*changed, ""]), encoding="utf-8")
            yield
        finally:
            with files.errors_name(path):
                path.write_text(source, encoding="utf-8")

    def first_failure(self, tests: Sequence[str], *options: str) -> str | None:
        """Runs tests until one fails; returns its name, or None.

        Args:
          tests: test files; all if empty.
          *options: options of pytest.
        """
        run = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                [*run, *options, *tests],
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"not finished in {LIMIT_SECONDS} s"
        if done.returncode == 0:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return failed[1] if failed else done.stdout[-200:]


def lines_by_test(
    checkout: Checkout,
    results: pathlib.Path,
    *,
    num_workers: int,
    progress: Progress = silent,
) -> dict[str, dict[str, list[int]]]:
    """Finds the lines that each test file runs, including in processes it starts.

    Args:
      checkout: copy of the code in which the tests run.
      results: folder for one JSON file per test file; a test file that has one is not
        run again.
      num_workers: number of test files to run in parallel.
      progress: reports the number of finished test files.

    Returns:
      Test file -> source file -> lines.

    Raises:
      StoppedError: if the tests of a file are interrupted or cannot be started.
    """
    listed = sorted(checkout.folder.glob("tests/**/test_*.py"))
    tests = [path.relative_to(checkout.folder).as_posix() for path in listed]

    def measure(test: str) -> dict[str, list[int]]:
        path = results / f"{test.replace('/', '.')}.json"
        if not path.is_file():
            data = results / f"{test.replace('/', '.')}.coverage"
            _run_with_coverage(checkout.folder, test, data)
            files.write_text(path, json.dumps(_read_coverage(checkout.folder, data)))
        return json.loads(path.read_text(encoding="utf-8"))

    results.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
        found = progress(
            pool.map(measure, tests), "coverage", total=len(tests), unit="file"
        )
        return dict(zip(tests, found, strict=True))


def _run_with_coverage(folder: pathlib.Path, test: str, data: pathlib.Path) -> None:
    run = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*run, "--cov", "--cov-report=", test],
        cwd=folder,
        env={**os.environ, "COVERAGE_FILE": str(data)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode not in _COMPLETE:
        raise StoppedError(f"{test}: pytest ended with exit status {done.returncode}")


def _read_coverage(folder: pathlib.Path, data: pathlib.Path) -> dict[str, list[int]]:
    if not data.is_file():
        # All tests of the file are slow, so that none ran.
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
      folder: root of the copy.
      lines: as `lines_by_test` returns them.
      count: number of mutants.
      seed: seed of the random generator.

    Raises:
      InputError: if fewer than `count` lines have a mutant.
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
    return [generator.choice(by_line[location]) for location in chosen]


class Record:
    """Outcome of each mutant, kept in a JSON file.

    Args:
      path: the file, which is read if it exists.

    Attributes:
      outcomes: text of a mutant -> the first test that failed, or one of `SURVIVED`.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.outcomes: dict[str, str] = {}
        if path.is_file():
            self.outcomes = json.loads(path.read_text(encoding="utf-8"))

    def write(self, mutant: Mutant, outcome: str) -> None:
        """Records the outcome of a mutant."""
        self.outcomes[str(mutant)] = outcome
        content = json.dumps(self.outcomes, indent=1, ensure_ascii=False)
        files.write_text(self.path, content + "\n")

    def survived(self, mutant: Mutant) -> bool:
        """Returns whether no test detected a mutant."""
        return self.outcomes.get(str(mutant)) in SURVIVED


def try_mutants(
    checkouts: Sequence[Checkout],
    mutants: Sequence[Mutant],
    lines: dict[str, dict[str, list[int]]],
    *,
    record: Record,
    progress: Progress = silent,
) -> None:
    """Runs, for each mutant, the test files that run its line, until one fails.

    Args:
      checkouts: copies of the code; each tries one mutant at a time.
      mutants: the mutants; those with a recorded outcome are skipped.
      lines: as `lines_by_test` returns them.
      record: record to which each outcome is written as soon as it is known.
      progress: reports the number of finished mutants.
    """
    idle = queue.SimpleQueue[Checkout]()
    for checkout in checkouts:
        idle.put(checkout)

    def outcome(mutant: Mutant) -> tuple[Mutant, str]:
        tests = [
            test
            for test, found in lines.items()
            if mutant.line in found.get(mutant.path, ())
        ]
        checkout = idle.get()
        try:
            with checkout.mutated(mutant):
                return mutant, checkout.first_failure(tests, "-n0") or SURVIVED[0]
        finally:
            idle.put(checkout)

    remaining = [mutant for mutant in mutants if str(mutant) not in record.outcomes]
    with concurrent.futures.ThreadPoolExecutor(len(checkouts)) as pool:
        done = concurrent.futures.as_completed(
            [pool.submit(outcome, mutant) for mutant in remaining]
        )
        for future in progress(done, "mutants", total=len(remaining), unit="mutant"):
            record.write(*future.result())


def try_all_tests(
    checkout: Checkout,
    mutants: Sequence[Mutant],
    *,
    record: Record,
    num_workers: int,
    progress: Progress = silent,
) -> None:
    """Runs all tests on each mutant, as `make test` does, until one fails.

    Args:
      checkout: copy of the code in which the mutants are tried.
      mutants: mutants that survived the tests that run their lines; those recorded as
        surviving all tests are skipped.
      record: record to which the outcomes are written.
      num_workers: number of pytest processes.
      progress: reports the number of finished mutants.
    """
    options = (f"-n{num_workers}", "--dist=loadfile", "--no-loadscope-reorder")
    remaining = [m for m in mutants if record.outcomes[str(m)] != SURVIVED[1]]
    for mutant in progress(remaining, "all tests", total=len(remaining), unit="mutant"):
        with checkout.mutated(mutant):
            record.write(mutant, checkout.first_failure([], *options) or SURVIVED[1])
