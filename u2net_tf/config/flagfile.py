"""Text of a flagfile that repeats a command, and what differs between two."""

from __future__ import annotations

import contextlib

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
        elif "tuple" in str(field.annotation):
            lines.append(f"--{flag}=")
    return "".join(f"{line}\n" for line in lines)


def changes(before: str, now: str) -> list[str]:
    """Says of each flag that differs what it was and what it is.

    Both texts hold all flags of their version; one that the other does not know is new
    or gone, and no change.

    Args:
      before: text of a flagfile.
      now: text of another.
    """
    old, new = (_by_name(text) for text in (before, now))
    return [
        f"was {old[name]}, now {new[name]}"
        for name in sorted(old.keys() & new.keys())
        if _value(old[name]) != _value(new[name])
    ]


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
