"""Positional arguments of a command, as MODEL of `python -m u2net_tf.describe MODEL`.

A setting with `json_schema_extra={"positional": True}` is one; all of them are required
texts. Whatever else is no flag is refused, with the flag that may be meant.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from u2net_tf import command_flags
from u2net_tf.config.base import Config
from u2net_tf.errors import InputError
from u2net_tf.wording import first_few

# What editors and web pages make of two hyphens, or of one.
_DASHES = "-‐‑‒–—−"
_TRUTHS = ("true", "false", "yes", "no", "1", "0")


def read(
    arguments: Sequence[str],
    config: type[Config] | None,
    *,
    values: flags.FlagValues = flags.FLAGS,
) -> dict[str, str]:
    """Returns name -> value of the settings that are given by their place.

    Args:
      arguments: what is left of the command line after the flags and the program.
      config: class of the command's config; None if it has none.
      values: the command's flags, parsed.

    Raises:
      InputError: if there are more or fewer; names the flag that may be meant.
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
    """Asks whether a flag is meant; "" if none is likely."""
    name, equals, value = text.lstrip(_DASHES).partition("=")
    if equals and name in values:
        return f"Did you mean --{name}={value}?"
    fields = {} if config is None else command_flags.fields_by_flag(config)
    own = [values[name] for name in fields]
    for flag in own:
        if flag.boolean and flag.present and text.lower() in _TRUTHS:
            return f"Did you mean --{flag.name}={text}?"
        if isinstance(flag.value, list) and flag.value[-1:] == [""]:
            joined = ",".join([*flag.value[:-1], text])
            return f"Did you mean --{flag.name}={joined}, without spaces?"
    for flag in own:
        if fields[flag.name].is_required() and not flag.value:
            return f"Did you mean --{flag.name}={text}?"
    return ""
