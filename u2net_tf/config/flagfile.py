"""Writes the flagfile that reproduces a command, and compares two flagfiles."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

from pydantic.fields import FieldInfo

from u2net_tf.config.base import Config
from u2net_tf.old_flags import OLD_FLAGS


def flag_name(name: str) -> str:
    """Returns the flag of a setting: its name without the underscore of `from_`."""
    return name.removesuffix("_")


def to_text(config: Config) -> str:
    """Returns a flagfile with a line for each setting.

    A tuple that is None is written as an empty list; other settings that are None are
    left out.
    """
    values = config.flat()
    lines = []
    for name, field in type(config).settings().items():
        if values[name] is not None:
            lines.append(to_line(name, values[name]))
        elif _is_tuple(field):
            lines.append(to_line(name, ()))
    return "".join(f"{line}\n" for line in lines)


def to_line(name: str, value: Any) -> str:
    """Returns a setting as a flag: --overlap=0.25, --noskip_empty."""
    flag = flag_name(name)
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no{flag}"
    if isinstance(value, tuple):
        return f"--{flag}={','.join(map(str, value))}"
    return f"--{flag}={value}"


def optional_flags(config: type[Config]) -> set[str]:
    """Returns the flags that `to_text` leaves out if they are not given."""
    return {
        flag_name(name)
        for name, field in config.settings().items()
        if field.default is None and not _is_tuple(field)
    }


def _is_tuple(field: FieldInfo) -> bool:
    return "tuple" in str(field.annotation)


def changes(before: str, now: str, optional: Collection[str] = ()) -> list[str]:
    """Describes each flag that differs: "was --seed=0, now --seed=7".

    Each flagfile contains all flags of its version except optional ones. Any other flag
    that is in one of them only was added or removed since, and is not reported.

    Args:
      before: text of the earlier flagfile.
      now: text of the later flagfile.
      optional: flags as returned by `optional_flags`.
    """
    old, new = (_by_name(text) for text in (before, now))
    names = (old.keys() & new.keys()) | ((old.keys() ^ new.keys()) & set(optional))
    lines = [(old.get(n, "not given"), new.get(n, "not given")) for n in sorted(names)]
    return [f"was {a}, now {b}" for a, b in lines if _value(a) != _value(b)]


def values(text: str) -> dict[str, str]:
    """Returns name -> value of the flags in a flagfile.

    Renamed flags have their current names; booleans are "true" or "false".
    """
    found = {}
    for name, line in _by_name(text).items():
        _, equals, value = line.partition("=")
        is_negated = line.removeprefix("--").startswith(f"no{name}")
        found[name] = value if equals else "false" if is_negated else "true"
    return found


def _by_name(text: str) -> dict[str, str]:
    """Returns name -> line; of a repeated flag, the last line counts."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line_by_name = {}
    for line in lines:
        name, equals, value = line.removeprefix("--").partition("=")
        if name in OLD_FLAGS:
            name, convert = OLD_FLAGS[name]
            # An invalid value, in a file that was edited by hand, is kept unchanged.
            with contextlib.suppress(ValueError, ZeroDivisionError):
                value = convert(value)
            line = f"--{name}={value}"
        # --name and --noname set the same flag.
        line_by_name[name if equals else name.removeprefix("no")] = line
    return line_by_name


def _value(line: str) -> str | list[float]:
    """Returns the value of a line for comparison: 2048 equals 2048.0."""
    text = line.partition("=")[2]
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return line
