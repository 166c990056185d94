"""Positional arguments of a command: MODEL in `python -m u2net_tf.describe MODEL`.

A setting with `json_schema_extra={"positional": True}` is a positional argument; all of
them are required strings. Any other argument that is not a flag is refused, with a
suggestion of the flag that may be meant.

The first argument of a command with subcommands, such as `python -m u2net_tf.adapter
export`, is the name of a subcommand.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from absl import flags

from u2net_tf import command_flags
from u2net_tf.config.base import Config
from u2net_tf.errors import InputError
from u2net_tf.wording import first_few

# Hyphens, and the dashes that editors and web pages substitute for them.
_DASHES = "-‐‑‒–—−"
# Accepted in place of a subcommand.
_HELP = re.compile(r"--?(help\w*|version|h|\?)")
_BOOLEANS = ("true", "false", "yes", "no", "1", "0")


def take_command(argv: list[str], names: Sequence[str]) -> str | None:
    """Moves the name of a subcommand from the arguments to the name of the program.

    Args:
      argv: the program and its arguments; modified in place.
      names: names of the subcommands.

    Returns:
      The name; None if help or the version is requested instead.

    Raises:
      InputError: if the first argument is neither.
    """
    first = argv[1] if len(argv) > 1 else ""
    if _HELP.fullmatch(first):
        return None
    if first not in names:
        near = difflib.get_close_matches(first, names, n=1)
        raise InputError(
            "command line",
            expected=f"{', '.join(names[:-1])} or {names[-1]} as the first argument",
            received=first or "none",
            hint=f"Did you mean {near[0]}?" if near else "",
        )
    argv[:2] = [f"{argv[0]} {first}"]
    return first


def read(
    arguments: Sequence[str],
    config: type[Config] | None,
    *,
    values: flags.FlagValues = flags.FLAGS,
) -> dict[str, str]:
    """Returns the positional settings: name -> value.

    Args:
      arguments: the command line without the program and the flags.
      config: class of the command's config; None if it has none.
      values: the command's flags, parsed.

    Raises:
      InputError: if there are too many or too few; suggests the flag that may be meant.
    """
    names = () if config is None else command_flags.positional(config)
    usage = " ".join(name.upper() for name in names)
    surplus = arguments[len(names) :]
    if surplus:
        raise InputError(
            "command line",
            expected=f"{usage} and flags (--name=value)"
            if names
            else "flags only (--name=value)",
            received=first_few(list(arguments)),
            hint=_hint(surplus[0], config, values),
        )
    given = dict(zip(names, arguments, strict=False))
    for name in names:
        if not given.get(name):
            raise InputError("command line", expected=name.upper(), received="none")
    return given


def _hint(text: str, config: type[Config] | None, values: flags.FlagValues) -> str:
    """Suggests the flag that may be meant; "" if none is likely."""
    name, equals, value = text.lstrip(_DASHES).partition("=")
    if equals and name in values:
        return f"Did you mean --{name}={value}?"
    fields = {} if config is None else command_flags.fields_by_flag(config)
    own = [values[name] for name in fields]
    for flag in own:
        if flag.boolean and flag.present and text.lower() in _BOOLEANS:
            return f"Did you mean --{flag.name}={text}?"
        if isinstance(flag.value, list) and flag.value[-1:] == [""]:
            joined = ",".join([*flag.value[:-1], text])
            return f"Did you mean --{flag.name}={joined}, without spaces?"
    for flag in own:
        if fields[flag.name].is_required() and not flag.value:
            return f"Did you mean --{flag.name}={text}?"
    return ""
