"""Converts flag errors of absl to the format of all errors."""

from __future__ import annotations

import re

from absl import flags

from u2net_tf.errors import InputError

# "flag --keep=0: 0 is not an integer in the range [1, 2]"
_ILLEGAL = re.compile(r"flag --(\w+)=(.*?): (.*)", re.DOTALL)


def as_input_error(
    error: flags.Error, values: flags.FlagValues = flags.FLAGS
) -> InputError:
    """Converts an error of absl's parser to an `InputError`.

    Args:
      error: the parser's error.
      values: the flags.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        near = re.findall(r"Did you mean: (.*) \?$", str(error))
        hint = (
            f"Did you mean {' or '.join(f'--{n}' for n in near[0].split(', '))}?"
            if near
            else ""
        )
        return InputError(
            "command line",
            expected="a flag listed by --help",
            received=f"--{error.flagname}",
            hint=hint,
        )
    found = _ILLEGAL.fullmatch(str(error))
    if found and found[1] in values:
        name, value, problem = found.groups()
        expected = _expected(values[name])
        if expected:
            return InputError(f"`{name}`", expected=expected, received=value)
        return InputError(
            f"`{name}`", expected="a valid value", received=f"{value} ({problem})"
        )
    return InputError("command line", expected="valid flags", received=str(error))


def _expected(flag: flags.Flag) -> str:
    if isinstance(flag, flags.EnumFlag):
        return f"one of {', '.join(flag.parser.enum_values)}"
    if flag.boolean:
        return "true or false"
    return getattr(flag.parser, "syntactic_help", "")
