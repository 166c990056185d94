"""Reads flags of `train` and `adapt`, and the settings derived from them.

    python tests/command_settings.py MODULE <<< '[["--flag=value"], …]'

Nothing is trained. Prints the settings of each command line as JSON. Each call is a
process of its own: absl defines flags once in each.
"""

import dataclasses
import importlib
import json
import sys

from absl import flags
from command_session import python, tensorflow_server

# What absl knows, whatever lists of flags the command keeps.
_FLAGS = """
import importlib, json, sys
from absl import flags
importlib.import_module(sys.argv[1])
flags.FLAGS(sys.argv[1:])
modules = flags.FLAGS.flags_by_module_dict()
names = [name for name in modules if name.startswith("u2net_tf.")]
defined = [flag for name in names for flag in modules[name]]
key = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[1])]
print(json.dumps([{flag.name: [flag.value, flag.default] for flag in defined}, key]))
"""


def settings_of(module, command_lines):
    """The settings that a command derives from each of the command lines."""
    lines = [list(line) for line in command_lines]
    done = tensorflow_server().run("command_settings", module, text=json.dumps(lines))
    assert done.returncode == 0, done.stderr
    settings = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(settings) == len(lines)
    return settings


def parse_flags(module, *arguments):
    """Parses a command line as the command does, without TensorFlow.

    Returns:
      A dict that maps the name of every flag defined by this project's modules to its
      value and its default, and a list of the names that the command's `--help` shows.
    """
    done = python("-c", _FLAGS, module, *arguments)
    assert done.returncode == 0, done.stderr
    values, key = json.loads(done.stdout)
    return {name: tuple(pair) for name, pair in values.items()}, key


def dig(settings, path):
    """The value at a path of keys."""
    for key in path:
        settings = settings[key]
    return settings


def main():
    command = importlib.import_module(sys.argv[1])
    for arguments in json.load(sys.stdin):
        for name in list(flags.FLAGS):
            flags.FLAGS[name].unparse()
        flags.FLAGS([sys.argv[1], *arguments])
        print(json.dumps(command._settings(), default=dataclasses.asdict))


if __name__ == "__main__":
    main()
