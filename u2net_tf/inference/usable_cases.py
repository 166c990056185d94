"""What predict and evaluate do with a case that cannot be used: one rule for both.

Headers are read before the first prediction, voxels ahead of each. A case that cannot
be used is left out, with the reason, or ends it all, as `on_bad_case` says.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from u2net_tf import parallel
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.progress import Bar


class Named(Protocol):
    """A case, or a scan."""

    @property
    def name(self) -> str:
        """Differs from that of every other one."""
        ...


Case = TypeVar("Case", bound=Named)
Content = TypeVar("Content")


def read_options(reading: ReadingConfig) -> dict[str, Any]:
    """The arguments of `case.read_image` and `case.check_headers` that are settings."""
    return {
        "resample_modalities": reading.resample_modalities,
        "max_memory_gb": reading.max_memory_gb,
    }


def check_all(
    check: Callable[[Case], None], cases: Sequence[Case], reading: ReadingConfig
) -> dict[str, InputError]:
    """Name -> reason of the cases that fail a check.

    Args:
      check: takes a case.
      cases: the cases.
      reading: whether such a case ends it all.

    Raises:
      InputError: the first reason, unless such cases are skipped.
    """
    skipped: dict[str, InputError] = {}
    for case in cases:
        reason = _call(check, case)
        if isinstance(reason, InputError):
            leave_out(case.name, reason, skipped, reading)
    return skipped


@contextlib.contextmanager
def read_ahead(
    read: Callable[[Case], Content],
    cases: Sequence[Case],
    reading: ReadingConfig,
    *,
    skipped: dict[str, InputError],
    bar: Bar,
    executor: Executor | None = None,
) -> Iterator[Iterator[tuple[Case, Content]]]:
    """The content of the cases that can be used, as they are read.

    Args:
      read: takes a case; another process may call it.
      cases: the cases.
      reading: how many are read ahead (see `parallel.map_ahead`), and whether one that
        cannot be used ends it all.
      skipped: name -> reason, to which those are added that cannot be used.
      bar: counts the cases. It is closed at the end.
      executor: reads; None for threads of this process.

    Raises:
      InputError: the first reason, unless such cases are skipped.
    """
    with (
        bar,
        parallel.map_ahead(
            functools.partial(_call, read),
            cases,
            num_workers=reading.num_workers,
            executor=executor,
        ) as contents,
    ):
        yield _usable(contents, skipped, reading, bar)


def _call(function: Callable[[Case], Content], case: Case) -> Content | InputError:
    """What the function returns, or why the case cannot be used."""
    try:
        return function(case)
    except InputError as error:
        return error
    except OSError as error:
        return InputError(
            error.filename or case.name,
            expected="a file that can be read",
            received=error.strerror or error,
        )


def _usable(
    contents: Iterator[tuple[Case, Content | InputError]],
    skipped: dict[str, InputError],
    reading: ReadingConfig,
    bar: Bar,
) -> Iterator[tuple[Case, Content]]:
    for case, content in contents:
        if isinstance(content, InputError):
            leave_out(case.name, content, skipped, reading)
        else:
            yield case, content
        # Freed before the next one is waited for.
        del content
        bar.update()


def leave_out_all(
    reasons: Mapping[str, InputError], reading: ReadingConfig
) -> dict[str, InputError]:
    """Name -> reason of cases that are known to be unusable.

    Raises:
      InputError: the first reason, unless such cases are skipped.
    """
    skipped: dict[str, InputError] = {}
    for name, reason in reasons.items():
        leave_out(name, reason, skipped, reading)
    return skipped


def leave_out(
    name: str,
    reason: InputError,
    skipped: dict[str, InputError],
    reading: ReadingConfig,
) -> None:
    """Adds a case to those that are skipped.

    Raises:
      InputError: the reason, unless such cases are skipped.
    """
    if reading.on_bad_case == "fail":
        raise reason
    skipped[name] = reason
