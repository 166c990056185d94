"""Mutants of a source file: all changes of single lines that are tried."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from typing import TypeAlias

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


# Nodes that have a position in the source.
Located: TypeAlias = ast.expr | ast.stmt | ast.keyword


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
    """Yields all mutants of a file; each changes one line and can be parsed.

    Args:
      source: text of the file.
      path: path of the file, to be stored in the mutants.
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
    """Yields lines without behaviour: docstrings, annotations, imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and _is_without_behaviour(node):
            yield from range(_start(node)[0], _end(node)[0] + 1)


def _is_without_behaviour(node: ast.stmt) -> bool:
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
    """Yields replacements of parts of the source as (start, end, text).

    Positions are (line from 1, byte from 0).
    """
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = _COMPARISONS.get(type(node.ops[0]))
        if other:
            yield _end(node.left), _start(node.comparators[0]), f" {other} "
    elif isinstance(node, ast.BinOp):
        other = _ARITHMETIC.get(type(node.op))
        # Type unions are also written with |.
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
    elif isinstance(node, ast.stmt) and _can_be_deleted(node):
        yield _start(node), _end(node), "pass"
    elif isinstance(node, ast.Call) and node.keywords:
        keyword = node.keywords[-1]
        if keyword.arg is not None:
            yield _start(keyword), _end(keyword), ""


def _can_be_deleted(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    return isinstance(node, ast.AugAssign | ast.Continue | ast.Break)


def _start(node: Located) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: Located) -> tuple[int, int]:
    # Always set in a tree that was parsed from source.
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.end_lineno, node.end_col_offset


def _is_type(node: ast.BinOp) -> bool:
    """Returns whether `a | b` is a union of types, judged by its operands."""
    return isinstance(node.op, ast.BitOr) and any(
        isinstance(part, ast.Constant) and part.value is None
        for part in (node.left, node.right)
    )
