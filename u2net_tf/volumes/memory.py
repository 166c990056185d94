"""The limit to what one scan may take of the memory."""

from __future__ import annotations

from u2net_tf import machine
from u2net_tf.errors import InputError

_GB = 1e9
# Of the machine's memory, where no limit is given.
_DEFAULT_SHARE = 0.5


class MemoryLimitError(InputError):
    """A scan that needs more memory than it may take."""


def limit_gb(max_memory_gb: float | None) -> float:
    """The limit, GB: the one that is given, or half of the machine's memory."""
    if max_memory_gb is None:
        return machine.memory_bytes() * _DEFAULT_SHARE / _GB
    return max_memory_gb


def require_memory(
    where: object, num_bytes: float, *, content: str, max_memory_gb: float | None
) -> None:
    """Checks that something fits, before it is allocated.

    Args:
      where: the file.
      num_bytes: what it takes.
      content: what takes it, for the message: "shape (512, 512, 90) of int16".
      max_memory_gb: the limit, GB; None for half of the machine's memory.

    Raises:
      MemoryLimitError: if it takes more.
    """
    limit = limit_gb(max_memory_gb)
    if num_bytes > limit * _GB:
        raise MemoryLimitError(
            where,
            expected=f"at most {limit:.3g} GB of memory (`max_memory_gb`)",
            received=f"{num_bytes / _GB:.3g} GB for {content}",
        )
