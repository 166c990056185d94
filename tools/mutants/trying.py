"""Makes mutants in copies of the code and runs the tests of their lines."""

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
from u2net_tf.errors import InputError
from u2net_tf.progress import Progress, silent

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("u2net_tf", "data_prep")
# The tests that run its line, or all.
SURVIVED = ("survived", "survived all tests")
# A mutant may loop for ever; pytest ends a single test much earlier.
LIMIT_SECONDS = 2400


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
        # The files that take longest come first, to end together. Here they are to
        # come last, for the first failure ends all.
        seconds = self.folder / "tests" / "seconds.json"
        recorded = json.loads(seconds.read_text(encoding="utf-8"))
        negated = {name: -value for name, value in recorded.items()}
        files.write_text(seconds, json.dumps(negated))

    @contextlib.contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """The copy has a mutant for a while."""
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
        """Runs tests until one fails; says which, or None.

        Args:
          tests: test files; all if empty.
          *options: of pytest.
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
            return f"not done in {LIMIT_SECONDS} s"
        if done.returncode == 0:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return failed[1] if failed else done.stdout[-200:]


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


class Record:
    """Which test noticed each mutant; a JSON file.

    Args:
      path: the file, which is read if it is there.

    Attributes:
      outcomes: mutant, as text -> the first test that failed, or one of `SURVIVED`.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.outcomes: dict[str, str] = {}
        if path.is_file():
            self.outcomes = json.loads(path.read_text(encoding="utf-8"))

    def write(self, mutant: Mutant, outcome: str) -> None:
        """Adds a mutant's outcome."""
        self.outcomes[str(mutant)] = outcome
        content = json.dumps(self.outcomes, indent=1, ensure_ascii=False)
        files.write_text(self.path, content + "\n")

    def survived(self, mutant: Mutant) -> bool:
        """Whether no test noticed a mutant."""
        return self.outcomes.get(str(mutant)) in SURVIVED


def try_mutants(
    places: Sequence[Workplace],
    mutants: Sequence[Mutant],
    lines: dict[str, dict[str, list[int]]],
    *,
    record: Record,
    progress: Progress = silent,
) -> None:
    """Runs, for each mutant, the test files that run its line, until one fails.

    Args:
      places: copies of the code, in each of which one mutant is tried at a time.
      mutants: the mutants; those on record are passed over.
      lines: as `lines_of_tests` returns them.
      record: where the outcomes are written, each as soon as it is known.
      progress: shows how many mutants are done.
    """
    idle = queue.SimpleQueue[Workplace]()
    for place in places:
        idle.put(place)

    def outcome(mutant: Mutant) -> tuple[Mutant, str]:
        tests = [
            test
            for test, found in lines.items()
            if mutant.line in found.get(mutant.path, ())
        ]
        place = idle.get()
        try:
            with place.mutated(mutant):
                return mutant, place.first_failure(tests, "-n0") or SURVIVED[0]
        finally:
            idle.put(place)

    left = [mutant for mutant in mutants if str(mutant) not in record.outcomes]
    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        done = concurrent.futures.as_completed(
            [pool.submit(outcome, mutant) for mutant in left]
        )
        for future in progress(done, "mutants", total=len(left), unit="mutant"):
            record.write(*future.result())


def try_all_tests(
    place: Workplace,
    mutants: Sequence[Mutant],
    *,
    record: Record,
    num_workers: int,
    progress: Progress = silent,
) -> None:
    """Runs all tests on each mutant, as `make test` does, until one fails.

    Args:
      place: the copy in which the mutants are tried.
      mutants: mutants that survived the tests that run their lines; what has survived
        all tests is passed over.
      record: where the outcomes are written.
      num_workers: processes of pytest.
      progress: shows how many mutants are done.
    """
    options = (f"-n{num_workers}", "--dist=loadfile", "--no-loadscope-reorder")
    left = [m for m in mutants if record.outcomes[str(m)] != SURVIVED[1]]
    for mutant in progress(left, "all tests", total=len(left), unit="mutant"):
        with place.mutated(mutant):
            record.write(mutant, place.first_failure([], *options) or SURVIVED[1])
