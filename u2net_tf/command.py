"""How every command starts and fails: flags in, one call, a line on bad input.

The commands import TensorFlow and the rest inside `main`, so that `--help` answers at
once.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, cast

from absl import app, flags

from u2net_tf import command_flagfiles
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.progress import Bar
from u2net_tf.wording import quantity

_ENDED_BY_SIGPIPE = 128 + 13


def name_flags(message: str) -> str:
    """Writes the settings in a message, `name`, as the command's flags, --name."""
    from u2net_tf.config.flagfile import flag_name

    def as_flag(match: re.Match) -> str:
        name = flag_name(match[1])
        return f"--{name}" if name in flags.FLAGS else match[0]

    return re.sub(r"`(\w+)`", as_flag, message)


def progress_bar(
    iterable: Iterable[Any] | None = None, desc: str | None = None, **options: Any
) -> Bar:
    """Shows progress as a bar on standard error, if that is a terminal.

    This is what commands pass to the library as `progress`.
    """
    # Not at the top: --help does without it.
    from tqdm import tqdm

    # Its types say less about keyword arguments than `Bar` does.
    return cast(Bar, tqdm(iterable, desc, disable=None, **options))


def exit_if_skipped(skipped: Mapping[str, InputError], num_all: int, noun: str) -> None:
    """Lists what could not be used, and ends the command with exit status 1.

    Args:
      skipped: name -> reason; nothing happens if it is empty.
      num_all: of how many.
      noun: what they are: "scan".
    """
    if not skipped:
        return
    rows = [f"  {name}: {name_flags(str(error))}" for name, error in skipped.items()]
    head = f"error: {len(skipped)} of {quantity(num_all, noun)} could not be used:"
    sys.exit("\n".join([head, *rows]))


def start(main: Callable[[Any], None], config: type | None = None) -> None:
    """Parses flags and runs `main`; bad input ends in a message and exit status 1.

    Args:
      main: Takes the config that the flags ask for, or, without one, what is left of
        the command line after the flags. Flagfiles may be given by name among those
        of its package: see `command_flagfiles`.
      config: Class of the config; its flags are defined here.
    """
    if config is not None:
        from u2net_tf import command_flags

        command_flags.define(config)

    def guarded(argv: Sequence[str]) -> None:
        try:
            if len(argv) > 1:
                raise InputError(
                    "command line",
                    expected="flags only (--name=value)",
                    received=" ".join(argv[1:]),
                )
            main(argv if config is None else command_flags.read(config))
            # What is printed reaches a pipe here at the latest.
            sys.stdout.flush()
        except BrokenPipeError:
            _end_without_reader()
        except (InputError, StoppedError, OSError) as error:
            sys.exit(f"error: {name_flags(str(error))}")
        except KeyboardInterrupt:
            sys.exit("interrupted; run the same command again to go on")

    def parse(argv: list[str]) -> list[str]:
        package = _module_name(main).partition(".")[0]
        try:
            argv = command_flagfiles.expand(argv, package)
        except (InputError, OSError) as error:
            sys.exit(f"error: {name_flags(str(error))}")
        return app.parse_flags_with_usage(argv)

    for stream in (sys.stdout, sys.stderr):
        # A terminal or log may lack "×" or the letters of a file's name.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    module = main.__module__
    if module != "__main__":
        # Started by a console script, whose help is that of the command.
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
        sys.modules["__main__"].__doc__ = sys.modules[module].__doc__
    # TensorFlow's messages would bury ours; what devices there are, training says
    # itself. See also `machine.import_tensorflow`.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(guarded, flags_parser=parse)


def _end_without_reader() -> NoReturn:
    """Ends where nobody reads the output any more, as behind `| head`."""
    # Python would write the rest when it ends, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # As a shell says of other programs that are ended so.
    sys.exit(_ENDED_BY_SIGPIPE)


def _module_name(main: Callable[[Any], None]) -> str:
    """The module of a command, also where Python runs it as `__main__`."""
    spec = getattr(sys.modules[main.__module__], "__spec__", None)
    return main.__module__ if spec is None else spec.name
