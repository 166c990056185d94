"""Progress of long work: the library reports it, and a command shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol


class Bar(Protocol):
    """Progress of one piece of work: the part of tqdm's interface that is used.

    Iterating over it iterates over the items of the work and counts them. Where items
    differ in the units that they count for, it is used as a context manager, and
    `update` counts.
    """

    def __iter__(self) -> Iterator[Any]: ...

    def __enter__(self) -> Bar: ...

    def __exit__(self, *exception: object) -> None: ...

    def update(self, n: int = 1) -> object:
        """Counts `n` more units."""
        ...

    def set_postfix(self, *, refresh: bool = True, **values: object) -> object:
        """Shows values next to the count, immediately only if `refresh`."""
        ...

    def unpause(self) -> object:
        """Excludes the current item and its time from the rate."""
        ...


class Progress(Protocol):
    """Creates a `Bar`; the type of all parameters called `progress`."""

    def __call__(
        self,
        iterable: Iterable[Any] | None = None,
        desc: str | None = None,
        *,
        total: int | None = None,
        initial: int = 0,
        unit: str = "it",
        leave: bool = True,
        delay: float = 0,
    ) -> Bar:
        """Starts a bar.

        Args:
          iterable: the items; None if `update` counts units.
          desc: name of the work.
          total: number of units; the number of items if None.
          initial: number of units that are already done.
          unit: name of a unit.
          leave: whether the bar stays when the work is done.
          delay: seconds before the bar is shown.
        """
        ...


class _SilentBar:
    def __init__(self, iterable: Iterable[Any] | None):
        self._iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(() if self._iterable is None else self._iterable)

    def __enter__(self) -> _SilentBar:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        pass

    def set_postfix(self, *, refresh: bool = True, **values: object) -> None:
        pass

    def unpause(self) -> None:
        pass


def silent(
    iterable: Iterable[Any] | None = None, desc: str | None = None, **options: Any
) -> Bar:
    """Returns a bar that shows nothing; a `Progress`."""
    del desc, options
    return _SilentBar(iterable)
