"""Starts a command: parses its flags, runs it, and reports bad input in one line.

The commands import TensorFlow and other large modules inside `main`, so that `--help`
is fast.
"""

from __future__ import annotations

import functools
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, cast

from u2net_tf import command_flagfiles, stop_signals
from u2net_tf.errors import InputError, StoppedEarlyError, StoppedError
from u2net_tf.progress import Bar, Progress
from u2net_tf.wording import quantity

_ENDED_BY_SIGPIPE = 128 + 13


def _print_interrupted(by: str = "") -> None:
    print(f"interrupted{by}; rerun the same command to resume", file=sys.stderr)


def _quiet_on_ctrl_c(
    show: Callable[..., object],
    interrupts: Sequence[int],
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    """Reports Ctrl-C in one line instead of a traceback."""
    if not interrupts and not issubclass(kind, KeyboardInterrupt):
        show(kind, error, traceback)
        return
    _print_interrupted()
    # As Python does after a KeyboardInterrupt.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


# Installed on import: `start` is called only after a command has imported its settings,
# which takes seconds on a cold disk. Therefore absl is only imported in functions, too.
sys.excepthook = functools.partial(
    _quiet_on_ctrl_c, sys.excepthook, stop_signals.note_interrupts()
)


def name_flags(message: str) -> str:
    """Replaces the settings in a message (`name`) by the command's flags (--name)."""
    from absl import flags

    from u2net_tf.config.flagfile import flag_name

    def as_flag(match: re.Match) -> str:
        name = flag_name(match[1])
        return f"--{name}" if name in flags.FLAGS else match[0]

    return re.sub(r"`(\w+)`", as_flag, message)


def progress_bar(
    iterable: Iterable[Any] | None = None,
    desc: str | None = None,
    *,
    log_every_seconds: float = 30.0,
    **options: Any,
) -> Bar:
    """Shows progress on standard error: a bar in a terminal, otherwise log lines.

    Commands pass this function to the library as `progress`.

    Args:
      iterable: see `Progress`.
      desc: see `Progress`.
      log_every_seconds: minimum seconds between log lines.
      **options: see `Progress`.
    """
    if not sys.stderr.isatty():
        from u2net_tf.command_progress import LoggedBar

        return LoggedBar(iterable, desc, log_every_seconds=log_every_seconds, **options)
    # Imported here, since --help does not need it.
    from tqdm import tqdm

    # tqdm's annotations are less precise than those of `Bar`.
    return cast(Bar, tqdm(iterable, desc, **options))


def progress_every(seconds: float) -> Progress:
    """Returns `progress_bar` with the given minimum seconds between log lines."""
    return functools.partial(progress_bar, log_every_seconds=seconds)


def exit_if_skipped(skipped: Mapping[str, InputError], num_all: int, noun: str) -> None:
    """Lists the inputs that could not be used and exits with status 1.

    Args:
      skipped: name -> reason; nothing happens if it is empty.
      num_all: total number of inputs.
      noun: singular noun for an input: "scan".
    """
    if not skipped:
        return
    rows = [f"  {name}: {name_flags(str(error))}" for name, error in skipped.items()]
    head = f"error: {len(skipped)} of {quantity(num_all, noun)} could not be used:"
    sys.exit("\n".join([head, *rows]))


def start(
    main: Callable[[Any], None],
    config: type | None = None,
    *,
    description: str | None = None,
) -> None:
    """Parses flags and runs `main`; bad input ends with a message and exit status 1.

    A stop signal ends it with a message and an exit status of 128 plus the number of
    the signal.

    Args:
      main: receives the config read from the flags or, without a config class, the
        command line without the flags. The flagfiles of its package may be given by
        name; see `command_flagfiles`.
      config: class of the config; its flags are defined here.
      description: text that --help prints above the flags; the docstring of the module
        of `main` if None.
    """
    with stop_signals.raised() as received:
        try:
            _start(main, config, description)
        except (Exception, KeyboardInterrupt) as error:
            if not received and not isinstance(error, KeyboardInterrupt):
                raise
            number = received[0] if received else signal.SIGINT
            _print_interrupted("" if number == signal.SIGINT else f" by {number.name}")
            sys.exit(stop_signals.exit_status(number))


def start_one_of(commands: Mapping[str, tuple[Callable[[Any], None], type]]) -> None:
    """Runs `start` for the subcommand given as the first argument.

    Args:
      commands: name -> `main` and `config` of each subcommand, all in one module. The
        docstring of the module is the help shown without a subcommand; the docstring
        of each `main` is the help of that subcommand.
    """
    from u2net_tf.command_arguments import take_command

    mains = [main for main, _ in commands.values()]
    try:
        name = take_command(sys.argv, list(commands))
    except InputError as error:
        sys.exit(_error_line(error))
    if name is None:
        start(mains[0], description=sys.modules[mains[0].__module__].__doc__)
    else:
        main, config = commands[name]
        # The empty line before the flags, as after the docstring of a module.
        start(main, config, description=f"{inspect.getdoc(main)}\n")


def _start(
    main: Callable[[Any], None], config: type | None, description: str | None
) -> None:
    from absl import app, flags

    from u2net_tf import command_arguments, command_flags

    _define_flags(config)

    def guarded(argv: Sequence[str]) -> None:
        try:
            given = command_arguments.read(argv[1:], config)
            main(argv if config is None else command_flags.read(config, given))
            # Flushed here, so that a closed pipe is noticed within this block.
            sys.stdout.flush()
        except BrokenPipeError:
            _end_without_reader()
        except StoppedEarlyError as stopped:
            print(name_flags(str(stopped)), file=sys.stderr)
            sys.exit(stopped.exit_status)
        except (InputError, StoppedError, OSError, MemoryError) as error:
            sys.exit(_error_line(error))

    for stream in (sys.stdout, sys.stderr):
        # A terminal or log may not support "×" or the letters of a file name.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    module = main.__module__
    if module != "__main__":
        # Started by a console script, which shows the help of the command.
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
        description = description or sys.modules[module].__doc__
    if description is not None:
        sys.modules["__main__"].__doc__ = description
    # TensorFlow's messages would bury ours; training reports the devices itself. See
    # also `machine.import_tensorflow`.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    package = _module_name(main).partition(".")[0]
    app.run(guarded, flags_parser=lambda argv: _parse(argv, config, package))


def _parse(argv: list[str], config: type | None, package: str) -> list[str]:
    from absl import flags

    from u2net_tf import command_flag_errors, command_flags

    try:
        if config is not None:
            command_flags.require_lists_given_once(argv, config)
        return flags.FLAGS(command_flagfiles.expand(argv, package))
    except SystemExit:
        # --help has been printed, for which absl's exit status is 1.
        sys.exit(0)
    except BrokenPipeError:
        # --help prints while the flags are parsed.
        _end_without_reader()
    except flags.Error as error:
        sys.exit(_error_line(command_flag_errors.as_input_error(error)))
    except (InputError, OSError) as error:
        sys.exit(_error_line(error))


def _define_flags(config: type | None) -> None:
    from u2net_tf import command_flags, command_version

    command_version.define()
    if config is not None:
        command_flags.define(config)


def _error_line(error: Exception) -> str:
    if isinstance(error, OSError):
        from u2net_tf import system_errors

        error = system_errors.as_input_error(error) or error
    if isinstance(error, MemoryError):
        return f"error: expected enough memory. Received: {str(error) or 'MemoryError'}"
    return f"error: {name_flags(str(error))}"


def _end_without_reader() -> NoReturn:
    """Exits after the reader of the output has closed the pipe, as `| head` does."""
    # Python would try to flush the rest at exit and report an error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # The status that a shell reports for programs that end this way.
    sys.exit(_ENDED_BY_SIGPIPE)


def _module_name(main: Callable[[Any], None]) -> str:
    """Returns the name of a command's module, even if it runs as `__main__`."""
    spec = getattr(sys.modules[main.__module__], "__spec__", None)
    return main.__module__ if spec is None else spec.name
