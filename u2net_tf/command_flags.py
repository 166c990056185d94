"""Flags of a command, derived from its config: one for every setting."""

from __future__ import annotations

import collections
import itertools
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import pydantic
from absl import flags, logging
from pydantic.fields import FieldInfo

from u2net_tf.config.base import Config, to_input_error
from u2net_tf.config.flagfile import flag_name
from u2net_tf.errors import InputError
from u2net_tf.old_flags import OLD_FLAGS

ConfigT = TypeVar("ConfigT", bound=Config)
# Flags that are currently defined; removed before those of the next command are.
_defined: list[str] = []


def define(config: type[Config], *, values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for every setting; replaces those of the previous call.

    Args:
      config: class with the settings.
      values: flags to add to; those of the process by default.
    """
    if values is flags.FLAGS:
        for name in set(_defined) & set(values):
            delattr(values, name)
        _defined.clear()
        aliases = filter(None, map(_alias, fields_by_flag(config).values()))
        _defined.extend([*fields_by_flag(config), *aliases, *OLD_FLAGS])
    names = fields_by_flag(config)
    for name, field in names.items():
        _define(name, field, values)
    for old, (new, convert) in OLD_FLAGS.items():
        if new in names:
            # Registered for this module, not the command, so that --help omits it.
            flags.DEFINE_flag(_OldFlag(old, new, convert, values), values, __name__)


def fields_by_flag(config: type[Config]) -> dict[str, FieldInfo]:
    """Returns flag -> field of every setting that has a flag, in order."""
    without_flag = positional(config)
    return {
        flag_name(name): field
        for name, field in config.settings().items()
        if name not in without_flag
    }


def positional(config: type[Config]) -> tuple[str, ...]:
    """Returns the names of the positional settings, in order."""
    return tuple(
        name
        for name, field in config.settings().items()
        if _extra(field).get("positional")
    )


class _OldFlag(flags.Flag):
    """The old name of a renamed flag: sets the new flag and logs a warning."""

    def __init__(
        self,
        old: str,
        new: str,
        convert: Callable[[str], str],
        values: flags.FlagValues,
    ):
        text = f"Old name of --{new}."
        super().__init__(flags.ArgumentParser(), None, old, None, text)
        self._new = new
        self._convert = convert
        self._values = values

    def parse(self, argument: str) -> None:
        """Parses the value as the new flag's."""
        try:
            text = self._convert(argument)
        except (ValueError, ZeroDivisionError):
            raise InputError(
                f"`{self.name}`",
                expected="a number other than 0",
                received=argument,
                hint=f"Use `{self._new}` instead",
            ) from None
        logging.warning(
            "--%s=%s was renamed: use --%s=%s", self.name, argument, self._new, text
        )
        flag = self._values[self._new]
        flag.parse(text)
        flag.using_default_value = False


def required(*chosen: flags.Flag | flags.FlagHolder) -> None:
    """Requires values of flags.

    Raises:
      InputError: if a flag has no value; names the first one.
    """
    for flag in chosen:
        if flag.value in (None, "", [], [""]):
            raise InputError(f"`{flag.name}`", expected="a value", received="none")


def read(
    config: type[ConfigT],
    positionals: Mapping[str, str] = types.MappingProxyType({}),
    *,
    values: flags.FlagValues = flags.FLAGS,
) -> ConfigT:
    """Returns the config given by the command line.

    Args:
      config: see `define`.
      positionals: name -> value of the positional settings; see `command_arguments`.
      values: see `define`; already parsed.

    Raises:
      InputError: if a flag has no value or one that is not allowed.
    """
    chosen: dict[str, Any] = dict(positionals)
    for name, field in config.settings().items():
        if name in positionals:
            continue
        flag = flag_name(name)
        value = values[flag].value
        if field.is_required():
            required(values[flag])
        if isinstance(value, list):
            value = _numbers(values[flag], field)
        elif typing.get_origin(_kind(field)) is Literal:
            by_text = {str(choice): choice for choice in typing.get_args(_kind(field))}
            value = by_text.get(value)
        chosen[name] = _with_home(value)
    try:
        return config.from_flat(chosen)
    except pydantic.ValidationError as error:
        raise to_input_error(error) from None


def _with_home(value: Any) -> Any:
    """Replaces "~" in paths, which shells leave unchanged after "--flag="."""
    if isinstance(value, tuple):
        return tuple(map(_with_home, value))
    is_path = isinstance(value, str) and value.startswith("~/")
    return os.path.expanduser(value) if is_path else value


def require_lists_given_once(argv: Sequence[str], config: type[Config]) -> None:
    """Checks that no list is given twice, of which only the last would be used.

    Args:
      argv: the command line, in which flagfiles are not yet expanded, since its lists
        replace theirs.
      config: class with the settings.

    Raises:
      InputError: if one is.
    """
    names: dict[str, str] = {}
    for name, field in fields_by_flag(config).items():
        is_list = typing.get_origin(_kind(field)) is tuple
        if is_list and not _extra(field).get("repeated"):
            names |= {name: name, _alias(field) or name: name}
    given: collections.Counter[str] = collections.Counter()
    for argument in itertools.takewhile(lambda text: text != "--", argv[1:]):
        if argument.startswith("-"):
            flag = argument.lstrip("-").partition("=")[0]
            given[names.get(flag, "")] += 1
    del given[""]
    for name, count in given.items():
        if count > 1:
            raise InputError(
                f"`{name}`",
                expected="one list, with its values separated by commas",
                received=f"{count} lists",
            )


def _kind(field: FieldInfo) -> Any:
    """Returns the type of a setting, without None."""
    kind = field.annotation
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is typing.Annotated:
        # A tuple with its own constraint.
        kind = typing.get_args(kind)[0]
    return kind


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _alias(field: FieldInfo) -> str | None:
    """Returns the alias of a flag; None if it has none."""
    return _extra(field).get("alias")


def _bounds(metadata: Any) -> dict[str, Any]:
    found = {}
    for item in metadata:
        for ours, theirs in (("ge", "lower_bound"), ("le", "upper_bound")):
            if hasattr(item, ours):
                found[theirs] = getattr(item, ours)
    return found


def _define(name: str, field: FieldInfo, values: flags.FlagValues) -> None:
    kind = _kind(field)
    default = None if field.is_required() else field.default
    # Shown by --help as flags of the command.
    common = {"flag_values": values, "module_name": sys.argv[0]}
    text = field.description
    if typing.get_origin(kind) is Literal:
        choices = [str(choice) for choice in typing.get_args(kind)]
        flags.DEFINE_enum(name, default, choices, text, **common)
    elif typing.get_origin(kind) is tuple:
        texts = [str(part) for part in default or ()]
        is_repeated = _extra(field).get("repeated")
        how = flags.DEFINE_multi_string if is_repeated else flags.DEFINE_list
        how(name, texts, text, **common)
    else:
        bounds = _bounds(field.metadata)
        kinds: dict[type, Callable] = {
            bool: flags.DEFINE_bool,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
        }
        kinds[kind](name, default, text, **bounds, **common)
    if alias := _alias(field):
        flags.DEFINE_alias(alias, name, **common)


def triple(
    flag: flags.Flag | flags.FlagHolder, *, least: int
) -> tuple[int, int, int] | None:
    """Returns the z,y,x values of a list flag; None if it has no value.

    Raises:
      InputError: if it is not three integers of at least `least`.
    """
    if not flag.value:
        return None
    try:
        values = tuple(int(text) for text in flag.value)
    except ValueError:
        values = ()
    if len(values) != 3 or min(values) < least:
        raise InputError(
            f"`{flag.name}`",
            expected=f"three integers z,y,x of at least {least}",
            received=",".join(flag.value),
        )
    return values


def _numbers_of_any_length(flag: flags.Flag) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in flag.value)
    except ValueError:
        raise InputError(
            f"`{flag.name}`", expected="numbers", received=",".join(flag.value)
        ) from None


def _numbers(flag: flags.Flag, field: FieldInfo) -> tuple | None:
    """Returns the value of a list flag: strings unchanged, numbers parsed."""
    number, *others = typing.get_args(_kind(field))
    if others[-1] is Ellipsis:
        return tuple(flag.value) if number is str else _numbers_of_any_length(flag)
    if typing.get_origin(number) is typing.Annotated:
        metadata = typing.get_args(number)[1].metadata
        return triple(flag, least=_bounds(metadata)["lower_bound"])
    if not flag.value:
        return None
    try:
        lowest, highest = (number(text) for text in flag.value)
    except ValueError:
        raise InputError(
            f"`{flag.name}`",
            expected="two numbers lowest,highest",
            received=",".join(flag.value),
        ) from None
    return lowest, highest
