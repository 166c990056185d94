"""Text of a flagfile that repeats a command, and what differs between two."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from pydantic.fields import FieldInfo

from u2net_tf.config.base import Config
from u2net_tf.migrations import OLD_FLAGS


def flag_name(name: str) -> str:
    """The flag of a setting: its name, without the underscore after a keyword."""
    return name.removesuffix("_")


def to_text(config: Config) -> str:
    """A line for every setting; a list that is None is empty, others are left out."""
    values = config.flat()
    lines = []
    for name, field in type(config).settings().items():
        flag, value = flag_name(name), values[name]
        if isinstance(value, bool):
            lines.append(f"--{flag}" if value else f"--no{flag}")
        elif isinstance(value, tuple):
            lines.append(f"--{flag}={','.join(map(str, value))}")
        elif value is not None:
            lines.append(f"--{flag}={value}")
        elif _is_tuple(field):
            lines.append(f"--{flag}=")
    return "".join(f"{line}\n" for line in lines)


def optional_flags(config: type[Config]) -> set[str]:
    """Flags that `to_text` leaves out where they are not given."""
    return {
        flag_name(name)
        for name, field in config.settings().items()
        if field.default is None and not _is_tuple(field)
    }


def _is_tuple(field: FieldInfo) -> bool:
    return "tuple" in str(field.annotation)


def changes(before: str, now: str, optional: Collection[str] = ()) -> list[str]:
    """Says of each flag that differs what it was and what it is.

    Both texts hold all flags of their version except optional ones; any other that is
    in one text alone is new or gone, and no change.

    Args:
      before: text of a flagfile.
      now: text of another.
      optional: names of `optional_flags`.
    """
    old, new = (_by_name(text) for text in (before, now))
    names = (old.keys() & new.keys()) | ((old.keys() ^ new.keys()) & set(optional))
    lines = [(old.get(n, "not given"), new.get(n, "not given")) for n in sorted(names)]
    return [f"was {a}, now {b}" for a, b in lines if _value(a) != _value(b)]


def values(text: str) -> dict[str, str]:
    """Name -> value of the flags in a text, by their names now; "true" or "false"."""
    found = {}
    for name, line in _by_name(text).items():
        _, equals, value = line.partition("=")
        no = line.removeprefix("--").startswith(f"no{name}")
        found[name] = value if equals else "false" if no else "true"
    return found


def _by_name(text: str) -> dict[str, str]:
    """Name -> line; of a flag that stands twice the last counts."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = {}
    for line in lines:
        name, equals, value = line.removeprefix("--").partition("=")
        if name in OLD_FLAGS:
            name, convert = OLD_FLAGS[name]
            # A value that is none, in a file that somebody edited, stays as it is.
            with contextlib.suppress(ValueError, ZeroDivisionError):
                value = convert(value)
            line = f"--{name}={value}"
        # --name and --noname are of one flag.
        named[name if equals else name.removeprefix("no")] = line
    return named


def _value(line: str) -> str | list[float]:
    """What a line says: 2048 and 2048.0 are the same."""
    text = line.partition("=")[2]
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return line
