"""How every command starts and fails: flags in, one call, a line on bad input.

The commands import TensorFlow and the rest inside `main`, so that `--help` answers at
once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags


class InputError(ValueError):
    """Bad input: names the file or flag, what was expected and what was found."""


class StoppedError(RuntimeError):
    """A run that cannot go on: says where it stopped and what is kept."""


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def required(*holders: flags.FlagHolder) -> None:
    """Checks that flags were given.

    Raises:
      InputError: names the first that was not.
    """
    for holder in holders:
        if holder.value in (None, "", []):
            raise InputError(f"--{holder.name}: expected a value, found none")


def triple(holder: flags.FlagHolder, *, least: int) -> tuple[int, int, int] | None:
    """The value z,y,x of a list flag; None where none is given.

    Raises:
      InputError: if it is not three whole numbers of at least `least`.
    """
    if not holder.value:
        return None
    try:
        values = tuple(int(text) for text in holder.value)
    except ValueError:
        values = ()
    if len(values) != 3 or min(values) < least:
        raise InputError(
            f"--{holder.name}: expected three whole numbers z,y,x of at least {least}, "
            f"found {','.join(holder.value)}"
        )
    return values


def flagfile_text(*namespaces: Mapping[str, Any]) -> str:
    """A flagfile that repeats the command.

    Args:
      *namespaces: of the modules that define its flags. TensorFlow defines some of its
        own when it is imported, and those are unknown when a command starts.
    """
    holders = [
        item
        for namespace in namespaces
        for item in namespace.values()
        if isinstance(item, flags.FlagHolder) and item.value is not None
    ]
    return "".join(flags.FLAGS[holder.name].serialize() + "\n" for holder in holders)


def import_tensorflow() -> None:
    """Imports TensorFlow without the lines that it writes to stderr meanwhile.

    They are written before any log level counts. Where the import fails, they are
    shown after all.
    """
    if "tensorflow" in sys.modules:
        return
    with _held_stderr() if hasattr(os, "fork") else contextlib.nullcontext():
        import tensorflow  # noqa: F401


# Ends what is held, if it is not to be shown.
_DISCARD = b"\0discard\0"


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Holds back what is written to stderr, and shows it unless the block succeeds.

    A process of its own holds it: native code may abort this one, which leaves no time
    to show anything.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        os.close(writer)
        _hold(reader)
    os.close(reader)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
        os.write(2, _DISCARD)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.waitpid(holder, 0)


def _hold(reader: int) -> NoReturn:
    """Reads a pipe to its end and writes to stderr what is not to be discarded."""
    try:
        # Ctrl-C reaches every process of the terminal; the other one ends this.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        held = b""
        while chunk := os.read(reader, 1 << 16):
            held += chunk
        if not held.endswith(_DISCARD):
            os.write(2, held)
    finally:
        # Nothing of what Python does at its exit belongs to this process.
        os._exit(0)


def start(main: Callable[[Sequence[str]], None]) -> None:
    """Parses flags and runs `main`; bad input ends in a message and exit status 1.

    Args:
      main: takes what is left of the command line after the flags.
    """

    def guarded(argv: Sequence[str]) -> None:
        try:
            if len(argv) > 1:
                raise InputError(
                    f"expected flags only (--name=value), found {argv[1:]}"
                )
            main(argv)
        except (InputError, StoppedError, OSError) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("interrupted; run the same command again to go on")

    module = main.__module__
    if module != "__main__":
        # Started by a console script, whose help is that of the command.
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
        sys.modules["__main__"].__doc__ = sys.modules[module].__doc__
    # TensorFlow's messages would bury ours; what devices there are, training says
    # itself. See also `import_tensorflow`.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(guarded)
