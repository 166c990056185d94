"""Limits of plans and models, checked before anything is built.

They are far above what networks for scans need, and prevent a damaged or malicious file
from exhausting the memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from u2net_tf.errors import InputError
from u2net_tf.schema import Extent, Pools, Text

# Records store a class index in a byte.
MAX_CLASSES = 256
# At the deepest level; the published network has 512.
MAX_CHANNELS = 4096
# Levels of UNet# below full resolution.
MAX_DEPTH = 4
# 512 x 512 x 512; the published network uses 128 x 128 x 128.
MAX_PATCH_VOXELS = 2**27
# 128 x 128 x 128; the published network has 32 x 32 x 32.
MAX_SMALLEST_PATCH_VOXELS = 2**21

BaseChannels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Depth = Annotated[int, Field(ge=1, le=MAX_DEPTH)]
# From a tenth of a micrometre to a metre.
_Spacing = Annotated[float, Field(ge=1e-4, le=1e3)]
SpacingMm = tuple[_Spacing, _Spacing, _Spacing]
Modalities = Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)]
NUM_DOMAINS = Field(min_length=1, max_length=256)


def _require_patch(size: tuple[int, int, int]) -> tuple[int, int, int]:
    if math.prod(size) > MAX_PATCH_VOXELS:
        raise InputError(
            "", expected=f"at most {MAX_PATCH_VOXELS:,} voxels", received=size
        )
    return size


PatchSize = Annotated[tuple[Extent, Extent, Extent], AfterValidator(_require_patch)]
PoolsByAxis = tuple[Pools, Pools, Pools]


def require_network(base_channels: int, pools: Sequence[int]) -> None:
    """Raises InputError if a network is too wide or halves its patches too many times.

    Args:
      base_channels: channels at full resolution.
      pools: number of times that each axis is halved; each level has twice the channels
        of the one above.
    """
    if max(pools) < 1:
        raise InputError(
            "pools", expected="at least one axis to be halved", received=tuple(pools)
        )
    max_channels = MAX_CHANNELS // 2 ** max(pools)
    if base_channels > max_channels:
        raise InputError(
            "base_channels",
            expected=f"at most {max_channels} with pools {tuple(pools)}",
            received=base_channels,
        )
    if 2 ** sum(pools) > MAX_SMALLEST_PATCH_VOXELS:
        raise InputError(
            "pools",
            expected=f"a smallest patch of at most {MAX_SMALLEST_PATCH_VOXELS:,} "
            "voxels, 2**pools along each axis",
            received=tuple(pools),
        )


def require_depth(base_channels: int, pools: Sequence[int], depth: int) -> None:
    """Raises InputError if a UNet# is too wide for its depth or its pools exceed it.

    Args:
      base_channels: channels at full resolution.
      pools: number of times that each axis is halved.
      depth: levels below full resolution; each has twice the channels of the one above.
    """
    if max(pools) > depth:
        raise InputError(
            "pools",
            expected=f"at most {depth} along each axis, since `depth` is {depth}",
            received=tuple(pools),
        )
    max_channels = MAX_CHANNELS // 2**depth
    if base_channels > max_channels:
        raise InputError(
            "base_channels",
            expected=f"at most {max_channels} with a depth of {depth}",
            received=base_channels,
        )
