"""Implementations of the operations; `table.py` has the table of them."""

from u2net_tf.networks.ops.implementations.table import (
    IMPLEMENTATIONS,
    Operations,
    check_implementation,
    current_implementation,
    use_implementation,
)

__all__ = [
    "IMPLEMENTATIONS",
    "Operations",
    "check_implementation",
    "current_implementation",
    "use_implementation",
]
