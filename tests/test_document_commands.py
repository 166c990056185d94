"""The command lines in documents and help have flags that exist, with valid values."""

import functools
import importlib
import pathlib
import re
from unittest import mock

import pytest
from absl import flags

from u2net_tf import command, command_flags

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("*/flagfiles/*.flags")),
    # Their docstrings are the help of the commands.
    *sorted(ROOT.glob("u2net_tf/*.py")),
    *sorted(ROOT.glob("data_prep/**/*.py")),
)
SHORT_NAMES = dict(
    re.findall(r'"(u2net-[\w-]+)": "([\w.]+)"', (ROOT / "setup.py").read_text("utf-8"))
)
MODULES = {name.removesuffix(".__main__"): name for name in SHORT_NAMES.values()}
OF_EVERY_COMMAND = {"--help", "--version", "--flagfile"}
# A command, and what follows up to the end of its line, of the code or of the command.
COMMAND = re.compile(r"(?:python -m ([\w.]+)|\b(u2net-[\w-]+))([^`#;\n]*)")
ARGUMENT = re.compile(r"""(?<!\S)(--)?\w+(=('[^']*'|"[^"]*"|[^\s'"]*))?""")


@functools.cache
def configs_of(module):
    """Subcommand -> config of a command; None -> config if it has no subcommands."""
    found = {}
    with (
        mock.patch.object(
            command, "start", lambda main, config: found.update({None: config})
        ),
        mock.patch.object(
            command,
            "start_one_of",
            lambda commands: found.update({n: c for n, (_, c) in commands.items()}),
        ),
    ):
        importlib.import_module(module).run()
    return found


def command_lines(path):
    """Yields the module of each command in a document, and its arguments."""
    text = path.read_text("utf-8")
    if path.suffix == ".flags":
        text = re.sub("^# ?", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    for long, short, rest in COMMAND.findall(text):
        module = SHORT_NAMES.get(short) or MODULES.get(long)
        if module is not None:
            yield module, [match[0] for match in ARGUMENT.finditer(rest)]


def problems(module, arguments):
    """Returns what is wrong with the arguments of a command."""
    configs = configs_of(module)
    config = configs.get(arguments[0] if arguments else None) or configs.get(None)
    for argument in arguments:
        name, equals, value = argument.replace("'", "").partition("=")
        if not name.startswith("--") or name in OF_EVERY_COMMAND:
            continue
        # A command with subcommands always names one.
        assert config is not None, f"{module}: no subcommand in {arguments}"
        known = flags.FlagValues()
        command_flags.define(config, values=known)
        if name.removeprefix("--") in known and (not equals or "$" in value):
            # Its value is not in the document.
            continue
        try:
            known(["command", f"{name}{equals}{value}"])
        except flags.Error as error:
            yield f"{module}: {error}"


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_flags_of_command_lines_exist(path):
    found = [p for line in command_lines(path) for p in problems(*line)]
    assert found == []


def test_command_lines_are_found():
    lines = [line for path in DOCUMENTS for line in command_lines(path)]
    assert {module for module, _ in lines} == set(SHORT_NAMES.values())


@pytest.mark.parametrize(
    "arguments", [["--nothing=1"], ["--noeval_cases"], ["--eval_cases=0"], ["--nokeep"]]
)
def test_a_wrong_flag_is_found(arguments):
    assert list(problems("u2net_tf.train", arguments))
