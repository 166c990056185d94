"""How every command starts and fails: flags in, one call, a line on bad input.

The commands import TensorFlow and the rest inside `main`, so that `--help` answers at
once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from absl import app


class InputError(ValueError):
    """Bad input: names the file or flag, what was expected and what was found."""


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
        except (InputError, OSError) as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            sys.exit("interrupted; run the same command again to go on")

    app.run(guarded)
