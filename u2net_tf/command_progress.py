"""Progress of commands that run without a terminal, as lines in the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, cast

from absl import logging

from u2net_tf.wording import duration, quantity


class LoggedBar:
    """A `Bar` that logs a line when units are counted, at most once per interval.

    The line gives the number of units done, the rate since the previous line, the time
    left at this rate, and the values of `set_postfix`. Work that takes less time than
    one interval is not logged.

    Args:
      iterable: the items; None if `update` counts units.
      desc: name of the work.
      total: number of units; if None, the number of items, where it is known.
      initial: number of units that are already done.
      unit: name of a unit.
      log_every_seconds: minimum seconds between lines.
      clock: returns seconds, as `time.monotonic` does.
      **options: options of how a bar is drawn; ignored.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        *,
        total: int | None = None,
        initial: int = 0,
        unit: str = "it",
        log_every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ):
        del options
        if total is None and hasattr(iterable, "__len__"):
            total = len(cast(Sized, iterable))
        self._iterable = iterable
        self._name = f"{desc}: " if desc else ""
        self._total = total
        self._unit = unit
        self._done = initial
        self._every = log_every_seconds
        self._clock = clock
        self._values: dict[str, object] = {}
        # Start of the interval of the rate, and the units that were done by then.
        self._last = clock(), initial

    def __iter__(self) -> Iterator[Any]:
        for item in () if self._iterable is None else self._iterable:
            yield item
            self.update()

    def __enter__(self) -> LoggedBar:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Counts units, and logs a line if the interval has passed."""
        self._done += n
        now = self._clock()
        seconds = now - self._last[0]
        units = self._done - self._last[1]
        # The end of the work is logged by its caller.
        if seconds < self._every or units <= 0 or self._done == self._total:
            return
        self._last = now, self._done
        values = [f"{k.replace('_', ' ')} {v}" for k, v in self._values.items()]
        parts = [*self._counts(seconds / units), *values]
        logging.info("%s%s", self._name, ", ".join(parts))

    def set_postfix(self, *, refresh: bool = True, **values: object) -> None:
        """Sets the values of the next line."""
        del refresh
        self._values = values

    def unpause(self) -> None:
        """Excludes the current item and its time from the rate."""
        self._last = self._clock(), self._done + 1

    def _counts(self, seconds_per_unit: float) -> Iterator[str]:
        if self._total is None:
            yield quantity(self._done, self._unit)
        else:
            yield f"{self._done} of {quantity(self._total, self._unit)}"
        if seconds_per_unit < 1:
            yield f"{1 / seconds_per_unit:.2f} {self._unit}s/s"
        else:
            yield f"{seconds_per_unit:.2f} s per {self._unit}"
        if self._total is not None:
            yield f"{duration((self._total - self._done) * seconds_per_unit)} left"
