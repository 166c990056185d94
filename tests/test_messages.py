"""The library neither names flags nor prints; commands do."""

import ast
import re

import pytest
from sources import tree_of
from test_command_settings import FLAGS
from test_imports import COMMANDS, LIBRARY, PREPARATION, imports_of, name_of

from u2net_tf.config.flagfile import flag_name

# Modules that define, read or write flags, and those that a user starts.
OF_COMMANDS = (
    "u2net_tf.config.flagfile",
    "u2net_tf.command_flags",
    "u2net_tf.command_flag_errors",
    "u2net_tf.command_arguments",
    "u2net_tf.command_version",
    "u2net_tf.command_flagfiles",
    "u2net_tf.command",
    *COMMANDS,
    *(f"data_prep.{name}.__main__" for name in ("survey", "plan", "convert")),
    "data_prep.verify",
)
BELOW_THE_COMMANDS = [
    path for path in [*LIBRARY, *PREPARATION] if name_of(path) not in OF_COMMANDS
]
NAMES = {flag_name(name) for config in FLAGS for name in config.settings()}


def strings_in(tree):
    """String literals, including those in f-strings, but not docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.value


def flags_in(text):
    """Flags of ours in a text, including `--` before a formatted value.

    Except those of a complete command: `python -m data_prep.convert --overwrite`.
    """
    text = re.sub(r"`python -m [^`]*`", "", text)
    named = re.findall(r"--(?:no)?(\w+)", text)
    return [name for name in named if name in NAMES] + re.findall(r"--$", text)


@pytest.mark.parametrize("path", BELOW_THE_COMMANDS, ids=name_of)
def test_the_library_names_no_flags(path):
    assert not [text for text in strings_in(tree_of(path)) if flags_in(text)]


@pytest.mark.parametrize("path", BELOW_THE_COMMANDS, ids=name_of)
def test_the_library_prints_nothing(path):
    nodes = ast.walk(tree_of(path))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    # `summary` prints, as in Keras.
    assert ("print" in names) == (name_of(path) == "u2net_tf.networks.domain_network")
    assert not [m for m in imports_of(path) if m.partition(".")[0] == "tqdm"]


def test_flags_in_strings_are_found():
    tree = ast.parse('"""Of --keep."""\nname = "keep"\nf"--{name}", "use --keep=3"')
    assert sum(bool(flags_in(text)) for text in strings_in(tree)) == 2
    assert not flags_in("tensorboard --logdir=DIR")
    assert not flags_in("run `python -m data_prep.convert --overwrite` again")


def test_all_modules_are_checked():
    names = {name_of(path) for path in [*LIBRARY, *PREPARATION]}
    assert set(OF_COMMANDS) <= names
