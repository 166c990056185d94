"""Handling of cases that cannot be used, in prediction and evaluation.

All headers are read before the first prediction; voxels are read ahead. A case that
cannot be used is skipped, with the reason, or stops the run, depending on
`on_bad_case`.
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
    """A case or a scan."""

    @property
    def name(self) -> str:
        """A unique name."""
        ...


Case = TypeVar("Case", bound=Named)
Content = TypeVar("Content")


def read_options(reading: ReadingConfig) -> dict[str, Any]:
    """Returns the settings for `case.read_image` and `case.check_headers`."""
    return {
        "resample_modalities": reading.resample_modalities,
        "max_memory_gb": reading.max_memory_gb,
    }


def check_all(
    check: Callable[[Case], None], cases: Sequence[Case], reading: ReadingConfig
) -> dict[str, InputError]:
    """Returns name -> reason for the cases that fail a check.

    Args:
      check: function of a case that raises an error if it cannot be used.
      cases: cases to check.
      reading: whether such a case stops the run.

    Raises:
      InputError: if a case fails, unless such cases are skipped.
    """
    skipped: dict[str, InputError] = {}
    for case in cases:
        reason = _call(check, case)
        if isinstance(reason, InputError):
            skip(case.name, reason, skipped, reading)
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
    """Yields the cases that can be used with their content, which is read ahead.

    Args:
      read: returns the content of a case; may be called in another process.
      cases: cases to read, in this order.
      reading: number of cases to read ahead (see `parallel.map_ahead`), and whether a
        case that cannot be used stops the run.
      skipped: name -> reason; cases that cannot be used are added.
      bar: counts the cases; closed at the end.
      executor: runs `read`; None for threads of this process.

    Raises:
      InputError: if a case cannot be used, unless such cases are skipped.
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
    """Returns the function's result, or the reason why the case cannot be used."""
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
            skip(case.name, content, skipped, reading)
        else:
            yield case, content
        # Freed before waiting for the next one.
        del content
        bar.update()


def skip_all(
    reasons: Mapping[str, InputError], reading: ReadingConfig
) -> dict[str, InputError]:
    """Skips cases that are known to be unusable; returns name -> reason.

    Raises:
      InputError: if there are any, unless such cases are skipped.
    """
    skipped: dict[str, InputError] = {}
    for name, reason in reasons.items():
        skip(name, reason, skipped, reading)
    return skipped


@contextlib.contextmanager
def skipped_if_unusable(
    name: str, skipped: dict[str, InputError], reading: ReadingConfig
) -> Iterator[None]:
    """Adds a case to the skipped ones if it turns out to be unusable in this context.

    Raises:
      InputError: the reason, unless such cases are skipped.
    """
    try:
        yield
    except InputError as error:
        # The traceback would keep the arrays of the case in memory.
        skip(name, error.with_traceback(None), skipped, reading)


def skip(
    name: str,
    reason: InputError,
    skipped: dict[str, InputError],
    reading: ReadingConfig,
) -> None:
    """Adds a case to the skipped ones.

    Raises:
      InputError: the reason, unless such cases are skipped.
    """
    if reading.on_bad_case == "fail":
        raise reason
    skipped[name] = reason
