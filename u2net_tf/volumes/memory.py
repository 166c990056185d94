"""Memory limits: of a single scan, and of worker processes together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from absl import logging

from u2net_tf import machine
from u2net_tf.errors import InputError
from u2net_tf.wording import quantity

_GB = 1e9
# Fraction of the machine's memory, if no limit is given.
_DEFAULT_FRACTION = 0.5
# A worker process between two cases: NumPy and SimpleITK, and what `malloc` keeps of
# arrays that were freed. 0.17 GB were measured before the first case, and at most 0.34
# after one.
_WORKER_GB = 0.4


class MemoryLimitError(InputError):
    """A scan that needs more memory than is allowed."""


def limit_gb(max_memory_gb: float | None) -> float:
    """Returns the limit in GB: the given one, or half of the machine's memory."""
    if max_memory_gb is None:
        return machine.memory_bytes() * _DEFAULT_FRACTION / _GB
    return max_memory_gb


def require_memory(
    where: object, num_bytes: float, *, content: str, max_memory_gb: float | None
) -> None:
    """Checks that data fits into memory before it is allocated.

    Args:
      where: the file.
      num_bytes: size of the data.
      content: what the data is, for the message: "shape (512, 512, 90) of int16".
      max_memory_gb: the limit, GB; None for half of the machine's memory.

    Raises:
      MemoryLimitError: if it needs more.
    """
    limit = limit_gb(max_memory_gb)
    if num_bytes > limit * _GB:
        raise MemoryLimitError(
            where,
            expected=f"at most {limit:.3g} GB of memory (`max_memory_gb`)",
            received=f"{num_bytes / _GB:.3g} GB for {content}",
        )


def fitting_workers(
    requested: int,
    needs: Sequence[float],
    max_memory_gb: float | None,
    *,
    activity: str,
) -> int:
    """Returns the number of worker processes that fit into memory, at least 1.

    They fit if as many of the largest cases fit at the same time. A smaller number than
    requested is logged.

    Args:
      requested: maximum number.
      needs: upper bound of the bytes of each case, without those of its process.
      max_memory_gb: memory of all workers, GB; None for half of the machine's memory.
      activity: what the workers do, for the log: "comparing label maps".
    """
    requested = max(1, min(requested, len(needs)))
    limit = limit_gb(max_memory_gb)
    largest = sorted(needs, reverse=True)[:requested]
    totals = itertools.accumulate(_WORKER_GB + need / _GB for need in largest)
    number = max(1, sum(total <= limit for total in totals))
    if number < requested:
        logging.info(
            "%s in %s instead of %d, to stay within %.3g GB (`max_memory_gb`)",
            activity,
            quantity(number, "worker process", "worker processes"),
            requested,
            limit,
        )
    return number
