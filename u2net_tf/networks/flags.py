"""Flags that say what a network is, for the commands that make one."""

from __future__ import annotations

from typing import Any

from absl import flags

from u2net_tf import command

_ADAPTER = flags.DEFINE_enum(
    "adapter",
    "separable",
    ["separable", "series", "parallel", "none"],
    "What the stride-1 convolutions are made of.",
)
_BASE_CHANNELS = flags.DEFINE_integer(
    "base_channels", 16, "Channels at full resolution.", lower_bound=1
)
_POOLS = flags.DEFINE_list(
    "pools",
    [],
    "How often z, y, x are halved; the plan's, for a single domain, if empty.",
)
_SECOND_UP_CONV = flags.DEFINE_enum(
    "second_up_conv",
    None,
    ["full", "pointwise"],
    "Last convolution of a decoder block; by default full where the adapter is "
    "separable and pointwise elsewhere, as published.",
)


def settings() -> dict[str, Any]:
    """`adapter`, `base_channels` and `second_up_conv` of a `ModelSpec`."""
    return {
        "adapter": _ADAPTER.value,
        "base_channels": _BASE_CHANNELS.value,
        "second_up_conv": _SECOND_UP_CONV.value,
    }


def pools() -> tuple[int, int, int] | None:
    """Of `--pools`; None where the plan's are wanted.

    Raises:
      InputError: if they are not three whole numbers of at least 0.
    """
    return command.triple(_POOLS, least=0)
