"""Table of the parameters of pruned UNet#s."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from u2net_tf.networks.parameter_counts import (
    Count,
    count_all,
    count_pruned,
    network_without_values,
)
from u2net_tf.networks.parameter_table import (
    ADAPTERS,
    NETWORK_NAMES,
    Domains,
    format_columns,
    format_range,
)
from u2net_tf.plan.sharp_grid import Gates

if TYPE_CHECKING:
    from u2net_tf.networks.unet_sharp import UNetSharp


@dataclasses.dataclass(frozen=True)
class PrunedRow:
    """Parameters of a joint UNet# that is pruned to a depth.

    Attributes:
      name: Name of the network.
      depth: L, the depth to which it is pruned.
      count: All parameters that remain.
      ratio: Total relative to the unpruned network with all heads.
    """

    name: str
    depth: int
    count: Count
    ratio: float


def pruned_parameters(
    domains: Domains,
    *,
    depth: int,
    base_channels: int,
    gates: Gates = "none",
    adapters: Sequence[str] = ADAPTERS,
) -> list[PrunedRow]:
    """Counts the parameters of the joint UNet#s pruned to each depth.

    Args:
      domains: At least one.
      depth: Depth of the unpruned networks.
      base_channels: Channels at full resolution.
      gates: Gates of the networks.
      adapters: Adapters of the universal networks.
    """
    rows = []
    for adapter in dict.fromkeys(("none", *adapters)):
        network = network_without_values(
            [domain.num_modalities for domain in domains],
            [domain.num_classes for domain in domains],
            architecture="unet_sharp",
            depth=depth,
            base_channels=base_channels,
            adapter=adapter,
            gates=gates,
        )
        unpruned = count_all(network).total
        for pruned_depth in range(depth, 0, -1):
            count = count_pruned(typing.cast("UNetSharp", network), pruned_depth)
            name = NETWORK_NAMES[adapter]
            ratio = count.total / unpruned
            rows.append(PrunedRow(name, pruned_depth, count, ratio))
    return rows


def format_pruned(rows: Sequence[PrunedRow]) -> str:
    """Formats rows of pruned networks as a table."""
    table = [
        {
            "network": row.name,
            "L": str(row.depth),
            "total": f"{row.count.total:,}",
            "shared": f"{row.count.shared:,}",
            "per domain": format_range(row.count.per_domain),
            "ratio": f"{row.ratio:.3f}",
        }
        for row in rows
    ]
    return format_columns(table)


def pruned_to_json(
    rows: Sequence[PrunedRow], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the rows for `json.dumps`, with the parameters of each domain by name."""
    return [
        {
            "network": row.name,
            "prune_to": row.depth,
            "total": row.count.total,
            "shared": row.count.shared,
            "per_domain": dict(zip(names, row.count.per_domain, strict=True)),
            "ratio_to_whole": row.ratio,
        }
        for row in rows
    ]
