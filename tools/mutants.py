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

import ast
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence

import coverage
from pydantic import Field

from u2net_tf import command, files
from u2net_tf.config.base import Config
from u2net_tf.errors import InputError
from u2net_tf.schema import Size

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("u2net_tf", "data_prep")
# A mutant may loop for ever.
LIMIT_SECONDS = 900

_COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_ARITHMETIC = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}


class MutantsConfig(Config):
    """Settings of `tools.mutants`."""

    work_dir: str = Field(description="Folder for a copy of the code and the results.")
    count: Size = Field(60, description="Number of mutants.")
    seed: int = Field(0, ge=0, description="Seed that the mutants are drawn with.")
    num_workers: int = Field(2, ge=1, description="Test files that run at a time.")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one line.

    Attributes:
      path: file, relative to the root.
      line: number of the line, from 1.
      before: the line.
      after: the changed line.
    """

    path: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return (
            f"{self.path}:{self.line}: {self.before.strip()}  ->  {self.after.strip()}"
        )


def mutants_of(source: str, path: str) -> Iterator[Mutant]:
    """All mutants of a file; each changes one line and can be parsed.

    Args:
      source: text of the file.
      path: its path, for the mutants.
    """
    lines = source.splitlines()
    tree = ast.parse(source)
    skipped = set(_skipped_lines(tree))
    for node in ast.walk(tree):
        line = getattr(node, "lineno", None)
        if line is None or line in skipped:
            continue
        for start, end, text in _replacements(node):
            if start[0] != end[0]:
                continue
            number = start[0]
            before = lines[number - 1].encode()
            after = before[: start[1]] + text.encode() + before[end[1] :]
            changed = [*lines]
            changed[number - 1] = after.decode()
            if before == after or not _parses("\n".join(changed)):
                continue
            yield Mutant(path, number, before.decode(), after.decode())


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _skipped_lines(tree: ast.Module) -> Iterator[int]:
    """Lines of which no behaviour is expected: docstrings, annotations, imports."""
    for node in ast.walk(tree):
        if _is_without_behaviour(node):
            yield from range(node.lineno, node.end_lineno + 1)


def _is_without_behaviour(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        condition = ast.unparse(node.test)
        return condition in ("TYPE_CHECKING", "__name__ == '__main__'")
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, ast.Import | ast.ImportFrom)


def _replacements(
    node: ast.AST,
) -> Iterator[tuple[tuple[int, int], tuple[int, int], str]]:
    """(start, end, text): what may stand instead of a part of the source.

    Places are (line from 1, byte from 0).
    """
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = _COMPARISONS.get(type(node.ops[0]))
        if other:
            yield _end(node.left), _start(node.comparators[0]), f" {other} "
    elif isinstance(node, ast.BinOp):
        other = _ARITHMETIC.get(type(node.op))
        # Types are written with |.
        if other and not _is_type(node):
            yield _end(node.left), _start(node.right), f" {other} "
    elif isinstance(node, ast.BoolOp):
        other = " or " if isinstance(node.op, ast.And) else " and "
        yield _end(node.values[0]), _start(node.values[1]), other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield _start(node), _start(node.operand), ""
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield _start(node), _end(node), str(not node.value)
        elif isinstance(node.value, int | float):
            yield _start(node), _end(node), f"{node.value + 1}"
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield _start(node.test), _end(node.test), "True"
        yield _start(node.test), _end(node.test), "False"
    elif isinstance(node, ast.Return) and node.value is not None:
        yield _start(node.value), _end(node.value), "None"
    elif _can_be_left_out(node):
        yield _start(node), _end(node), "pass"
    elif isinstance(node, ast.Call) and node.keywords:
        keyword = node.keywords[-1]
        if keyword.arg is not None:
            yield _start(keyword), _end(keyword), ""


def _can_be_left_out(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    return isinstance(node, ast.AugAssign | ast.Continue | ast.Break)


def _start(node: ast.AST) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.AST) -> tuple[int, int]:
    return node.end_lineno, node.end_col_offset


def _is_type(node: ast.BinOp) -> bool:
    """Whether `a | b` is a union of types, to judge by its parts."""
    return isinstance(node.op, ast.BitOr) and any(
        isinstance(part, ast.Constant) and part.value is None
        for part in (node.left, node.right)
    )


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
    place: Workplace, results: pathlib.Path, *, num_workers: int
) -> dict[str, dict[str, list[int]]]:
    """Which lines each test file runs, in its own process and in those it starts.

    Args:
      place: where the tests run.
      results: folder for a JSON file per test file, which is not run again.
      num_workers: test files that run at a time.

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
        found = command.progress_bar(
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


def main(config: MutantsConfig) -> None:
    """Draws mutants, tries each and prints those that survive."""
    work = pathlib.Path(config.work_dir).resolve()
    place = Workplace(work / "code")
    place.make()
    lines = lines_of_tests(place, work / "lines", num_workers=config.num_workers)
    mutants = draw_mutants(place.folder, lines, count=config.count, seed=config.seed)
    recorded = place.folder / "tests" / "seconds.json"
    seconds = json.loads(recorded.read_text(encoding="utf-8"))
    results = work / f"seed{config.seed}.json"
    known = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    for mutant in command.progress_bar(mutants, "mutants", unit="mutant"):
        if str(mutant) not in known:
            known[str(mutant)] = outcome(place, mutant, lines, seconds)
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
