"""The project's own source code, for tests of how it is written."""

import ast
import functools


@functools.cache
def tree_of(path):
    """The syntax tree of a file, parsed once for all tests that need it."""
    return ast.parse(path.read_text(encoding="utf-8"))
