"""Files and functions are short: each has one idea."""

import ast
import pathlib

import pytest
from sources import tree_of

ROOT = pathlib.Path(__file__).parents[1]
MAX_FILE_LINES = 320
# Without the docstring.
MAX_FUNCTION_LINES = 50
# Longer files (by name) and functions (by file and name), each with the reason.
EXCEPTIONS: dict[str | tuple[str, str], str] = {}
# Benchmarks are not developed further.
PATHS = sorted(
    path
    for folder in ("u2net_tf", "data_prep", "tools")
    for path in (ROOT / folder).rglob("*.py")
    if "bench" not in path.parts
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def functions_of(tree):
    """(name, lines without the docstring) of every function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, *others = node.body
            if ast.get_docstring(node) is not None and others:
                first = others[0]
            yield node.name, node.end_lineno - first.lineno + 1


def file_lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def long_functions(path):
    """(file, function) -> lines, for functions that are too long."""
    return {
        (name_of(path), name): length
        for name, length in functions_of(tree_of(path))
        if length > MAX_FUNCTION_LINES
    }


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_a_file_is_short(path):
    assert file_lines(path) <= MAX_FILE_LINES or name_of(path) in EXCEPTIONS


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_docstring_lines_are_not_joined(path):
    """A `\\` at the end of a line joins it with the next unless the string is raw."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            lines = (ast.get_docstring(node) or "").splitlines()
            assert all(len(line) <= 88 for line in lines), lines[0]


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_a_function_fits_on_a_page(path):
    long = long_functions(path)
    assert long.keys() <= EXCEPTIONS.keys(), long


@pytest.mark.parametrize("exception", EXCEPTIONS, ids=str)
def test_exceptions_are_needed(exception):
    if isinstance(exception, str):
        assert file_lines(ROOT / exception) > MAX_FILE_LINES
    else:
        assert exception in long_functions(ROOT / exception[0])


def test_lines_are_counted_without_the_docstring():
    source = 'def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a\n'
    assert list(functions_of(ast.parse(source))) == [("f", 2)]
