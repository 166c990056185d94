"""The memory limit of a single scan."""

from __future__ import annotations

from u2net_tf import machine
from u2net_tf.errors import InputError

_GB = 1e9
# Fraction of the machine's memory, if no limit is given.
_DEFAULT_FRACTION = 0.5


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
