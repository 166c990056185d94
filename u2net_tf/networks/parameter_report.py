"""Report of the parameter counts of all networks that could segment given domains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from u2net_tf.networks.parameter_table import (
    ADAPTERS,
    Domains,
    all_parameters,
    format_rows,
    rows_to_json,
    stride_1_weights,
)
from u2net_tf.networks.pruned_table import (
    PrunedRow,
    format_pruned,
    pruned_parameters,
    pruned_to_json,
)
from u2net_tf.plan.sharp_grid import Gates


def report(
    domains: Domains,
    *,
    pools: tuple[int, int, int],
    base_channels: int,
    depth: int | None = None,
    gates: Gates = "none",
    adapters: Sequence[str] = ADAPTERS,
    as_json: bool = False,
    **options: Any,
) -> str:
    """Reports both parameter counts of all networks, and those of pruned UNet#s.

    Args:
      domains: At least one.
      pools: Pools of the joint networks; see `joint_pools`.
      base_channels: Channels at full resolution.
      depth: Depth of all networks, for UNet#; None for 3D U²-Net.
      gates: Gates of all networks; "none" for 3D U²-Net.
      adapters: Adapters of the universal networks.
      as_json: Whether to return JSON, with the parameters of each domain, instead of
        text tables.
      **options: `second_up_conv`; see `all_parameters`.
    """
    options |= {
        "pools": pools,
        "base_channels": base_channels,
        "depth": depth,
        "gates": gates,
        "adapters": adapters,
    }
    halvings = f"pools {','.join(map(str, pools))}"
    size = f"{halvings} (independent networks: their own)"
    if depth is not None:
        size = f"UNet# of depth {depth}, {halvings}, gates {gates}"
    everything = all_parameters(domains, **options)
    weights = stride_1_weights(domains, **options)
    pruned = []
    if depth is not None:
        pruned = pruned_parameters(
            domains,
            depth=depth,
            base_channels=base_channels,
            gates=gates,
            adapters=adapters,
        )
    if as_json:
        names = [domain.name for domain in domains]
        tables = {"all parameters": everything, "stride-1 weights": weights}
        content = {key: rows_to_json(rows, names) for key, rows in tables.items()}
        if pruned:
            content["pruned"] = pruned_to_json(pruned, names)
        return json.dumps(content, indent=2)
    return "\n".join(
        [
            f"{len(domains)} domains, base_channels {base_channels}, {size}",
            "",
            "All parameters: kernels, biases, γ and β.",
            format_rows(everything),
            "",
            "Weights of the trunk's stride-1 convolutions, as in the paper's table "
            "3(a): without biases,",
            "norms, strided convolutions, stem, head and deep supervision.",
            format_rows(weights),
            "",
            *(_pruned_section(pruned) if pruned else ()),
            "per domain: parameters of one domain only, the cost of adding a domain",
            "ratio: total relative to the shared network",
        ]
    )


def _pruned_section(rows: Sequence[PrunedRow]) -> list[str]:
    return [
        "All parameters that remain when the joint networks are pruned to depth L, "
        "with only the",
        "head used for prediction; ratio: total relative to the unpruned network.",
        format_pruned(rows),
        "",
    ]
