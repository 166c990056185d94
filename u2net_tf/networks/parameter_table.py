"""Tables of parameter counts: the cost of a mode and of an additional domain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import tabulate

from u2net_tf.config.network import SECOND_UP_CONV_TO_KERNEL
from u2net_tf.networks.parameter_counts import (
    Count,
    count_all,
    count_stride_1_weights,
    count_trunk,
    network_without_values,
)
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.sharp_grid import Gates

if TYPE_CHECKING:
    from u2net_tf.networks.domain_network import DomainNetwork

ADAPTERS = ("separable", "series", "parallel")
_PUBLISHED_POOLS = (5, 5, 5)
NETWORK_NAMES = {"none": "shared", **{name: f"universal, {name}" for name in ADAPTERS}}


class DomainChannels(NamedTuple):
    """The attributes of a `Domain` that determine the size of a network."""

    name: str
    num_modalities: int
    num_classes: int
    pools: tuple[int, int, int]


PAPER_DOMAINS = (
    DomainChannels("Task02_Heart", 1, 2, (4, 5, 5)),
    DomainChannels("Task03_Liver", 1, 2, (5, 5, 5)),
    DomainChannels("Task04_Hippocampus", 1, 3, (3, 3, 3)),
    DomainChannels("Task05_Prostate", 2, 3, (2, 5, 5)),
    DomainChannels("Task07_Pancreas", 1, 2, (4, 5, 5)),
)
Domains = Sequence[Domain | DomainChannels]


@dataclasses.dataclass(frozen=True)
class Row:
    """Parameters of one way to segment all domains.

    Attributes:
      name: Name of the network or networks.
      second_up_conv: "full" or "pointwise", the setting that was counted; None for a
        UNet#.
      count: The parameters.
      trunk: The part of `count.total` that is in the trunk; None if only the trunk was
        counted.
    """

    name: str
    second_up_conv: str | None
    count: Count
    trunk: int | None

    @property
    def last_decoder_kernel(self) -> int | None:
        """Size of the kernel that `second_up_conv` means; None for a UNet#."""
        if self.second_up_conv is None:
            return None
        return SECOND_UP_CONV_TO_KERNEL[self.second_up_conv]


def joint_pools(
    domains: Domains,
    pools: tuple[int, int, int] | None,
    *,
    depth: int | None = None,
) -> tuple[int, int, int]:
    """Returns the pools of the joint networks.

    Args:
      domains: At least one.
      pools: Requested pools; if None, the depth of a UNet#, otherwise those of the
        domain if there is only one, and the published ones if there are several.
      depth: Depth of a UNet#; None for 3D U²-Net.
    """
    if pools is not None:
        return pools
    if depth is not None:
        return (depth,) * 3
    return domains[0].pools if len(domains) == 1 else _PUBLISHED_POOLS


def all_parameters(domains: Domains, **options: Any) -> list[Row]:
    """Counts all parameters; the last decoder kernel is the published one by default.

    Args:
      domains: At least one.
      **options: `adapters` and `base_channels` of the networks, `pools` of the joint
        ones, `depth` and `gates` of UNet#s, and `second_up_conv`: None for full with
        separable adapters and pointwise otherwise.
    """
    return _rows(domains, count_all, count_trunk, **options)


def stride_1_weights(
    domains: Domains, *, second_up_conv: str | None = None, **options: Any
) -> list[Row]:
    """Counts stride-1 weights; the last decoder kernel is full by default.

    The paper's 30.7 M weights of the shared network are those with a full kernel.

    Args:
      domains: At least one.
      second_up_conv: "full" or "pointwise", for all networks; full if None.
      **options: The other arguments of `all_parameters`.
    """
    options["second_up_conv"] = second_up_conv or "full"
    return _rows(domains, count_stride_1_weights, None, **options)


def _rows(
    domains: Domains,
    count: Callable[[DomainNetwork], Count],
    count_in_trunk: Callable[[DomainNetwork], Count] | None,
    *,
    adapters: Sequence[str] = ADAPTERS,
    pools: Sequence[int] = _PUBLISHED_POOLS,
    depth: int | None = None,
    gates: Gates = "none",
    **options: Any,
) -> list[Row]:
    if depth is not None:
        options = {k: v for k, v in options.items() if k != "second_up_conv"}
        options |= {"architecture": "unet_sharp", "depth": depth, "gates": gates}

    def build(domains: Domains, **settings: Any) -> DomainNetwork:
        return network_without_values(
            [domain.num_modalities for domain in domains],
            [domain.num_classes for domain in domains],
            **options,
            **settings,
        )

    def make_row(name: str, networks: Sequence[DomainNetwork], total: Count) -> Row:
        trunk = None
        if count_in_trunk is not None:
            trunk = sum(count_in_trunk(network).total for network in networks)
        second_up_conv = getattr(networks[0], "second_up_conv", None)
        return Row(name, second_up_conv, total, trunk)

    # The pools of a domain may exceed the depth of a UNet#, whose parameters they do
    # not affect.
    independent = [
        build([domain], adapter="none", pools=domain.pools if depth is None else pools)
        for domain in domains
    ]
    per_domain = tuple(count(network).total for network in independent)
    rows = [make_row(f"{len(domains)} independent", independent, Count(0, per_domain))]
    for adapter in dict.fromkeys(("none", *adapters)):
        joint = build(domains, adapter=adapter, pools=pools)
        rows.append(make_row(NETWORK_NAMES[adapter], [joint], count(joint)))
    return rows


def format_rows(rows: Sequence[Row]) -> str:
    """Formats rows as a table; the second row is that of the shared network."""
    reference = rows[1].count.total
    table = [
        {
            "network": row.name,
            **(
                {}
                if row.last_decoder_kernel is None
                else {"last decoder kernel": str(row.last_decoder_kernel)}
            ),
            "total": f"{row.count.total:,}",
            **({} if row.trunk is None else {"trunk": f"{row.trunk:,}"}),
            "shared": f"{row.count.shared:,}",
            "per domain": format_range(row.count.per_domain),
            "ratio": f"{row.count.total / reference:.3f}",
        }
        for row in rows
    ]
    return format_columns(table)


def format_columns(table: Sequence[dict[str, str]]) -> str:
    """Formats rows of column -> cell, names left-aligned and numbers right-aligned."""
    alignment = ("left", *["right"] * (len(table[0]) - 1))
    return tabulate.tabulate(
        table, headers="keys", colalign=alignment, disable_numparse=True
    )


def format_range(numbers: Sequence[int]) -> str:
    """Formats the minimum and the maximum of some numbers."""
    ends = sorted({min(numbers), max(numbers)})
    return " – ".join(f"{number:,}" for number in ends)


def rows_to_json(rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the rows for `json.dumps`, with the parameters of each domain by name."""
    return [
        {
            "network": row.name,
            "last_decoder_kernel": row.last_decoder_kernel,
            "total": row.count.total,
            "trunk": row.trunk,
            "shared": row.count.shared,
            "per_domain": dict(zip(names, row.count.per_domain, strict=True)),
            "ratio_to_shared": row.count.total / rows[1].count.total,
        }
        for row in rows
    ]
