"""Counts parameters: what a mode costs, and what a further domain adds.

  python -m u2net_tf.complexity                    # the paper's five domains
  python -m u2net_tf.complexity --plan=plan.json

Two ways of counting, each a table of independent models, the shared network and the
universal ones. The joint networks have the pools of --pools (5,5,5 if not given, or the
plan's of a single domain), independent models always the plan's. --adapter chooses one
universal network. Counted are the variables of networks that are built without their
values, in seconds and without their memory.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from u2net_tf import command, command_flags, machine
from u2net_tf.config.network import NetworkConfig
from u2net_tf.networks.parameter_counts import (
    Count,
    count_all,
    count_stride_1_weights,
    count_trunk,
    network_without_values,
)
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.plan_file import load_plan

ADAPTERS = ("separable", "series", "parallel")
JOINT_POOLS = (5, 5, 5)


class DomainChannels(NamedTuple):
    """What a network's size depends on of a `Domain`."""

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


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: a way to serve all domains, counted.

    Attributes:
        name: of the way.
        second_up_conv: "full" or "pointwise", the setting that was counted.
        count: what was counted.
        trunk: the part of `count.total` that lies in the trunk; None where nothing else
            was counted.
    """

    name: str
    second_up_conv: str
    count: Count
    trunk: int | None


def all_parameters(
    domains: Sequence[Domain | DomainChannels], **options: Any
) -> list[Row]:
    """Rows that count everything; the last up-convolution is by default as published.

    Args:
        domains: At least one.
        **options: `adapters`, `pools`, `base_channels`, `second_up_conv` of the
            networks; `pools` of the joint ones, `second_up_conv` None for full where
            the adapter is separable and pointwise elsewhere.
    """
    return _rows(domains, count_all, count_trunk, **options)


def stride_1_weights(
    domains: Sequence[Domain | DomainChannels],
    *,
    second_up_conv: str | None = None,
    **options: Any,
) -> list[Row]:
    """Rows of `count_stride_1_weights`; the last up-convolution is by default full.

    The paper's 30.7 M of the shared network are those of a full one.

    Args:
        domains: At least one.
        second_up_conv: "full" or "pointwise", of all networks; full if None.
        **options: `adapters`, `pools`, `base_channels`, as of `all_parameters`.
    """
    options["second_up_conv"] = second_up_conv or "full"
    return _rows(domains, count_stride_1_weights, None, **options)


def _rows(
    domains, count, count_in_trunk, *, adapters=ADAPTERS, pools=JOINT_POOLS, **options
) -> list[Row]:
    def row(name, networks, join):
        return Row(
            name,
            networks[0].second_up_conv,
            join([count(network) for network in networks]),
            count_in_trunk
            and sum(count_in_trunk(network).total for network in networks),
        )

    def network(chosen, **settings):
        return network_without_values(
            [domain.num_modalities for domain in chosen],
            [domain.num_classes for domain in chosen],
            **options,
            **settings,
        )

    alone = [
        network([domain], adapter="none", pools=domain.pools) for domain in domains
    ]
    names = {"none": "shared", **{name: f"universal, {name}" for name in ADAPTERS}}
    return [
        row(
            f"{len(domains)} independent",
            alone,
            lambda counts: Count(0, tuple(each.total for each in counts)),
        ),
        *(
            row(
                names[adapter],
                [network(domains, adapter=adapter, pools=pools)],
                lambda counts: counts[0],
            )
            for adapter in dict.fromkeys(("none", *adapters))
        ),
    ]


def format_rows(rows: Sequence[Row]) -> str:
    """A table of rows, of which the second is the shared network."""
    reference = rows[1].count.total
    columns = [
        ("network", *(row.name for row in rows)),
        ("second_up_conv", *(row.second_up_conv for row in rows)),
        ("total", *(f"{row.count.total:,}" for row in rows)),
        ("trunk", *(f"{row.trunk:,}" for row in rows if row.trunk is not None)),
        ("shared", *(f"{row.count.shared:,}" for row in rows)),
        ("per domain", *(_range(row.count.own) for row in rows)),
        ("ratio", *(f"{row.count.total / reference:.3f}" for row in rows)),
    ]
    columns = [column for column in columns if len(column) > 1]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            text.ljust(width) if index < 2 else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in zip(*columns, strict=True)
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def _range(numbers: Sequence[int]) -> str:
    ends = sorted({min(numbers), max(numbers)})
    return " – ".join(f"{number:,}" for number in ends)


def rows_to_json(rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows for `json.dumps`, with the parameters of each domain by its name."""
    return [
        {
            "network": row.name,
            "second_up_conv": row.second_up_conv,
            "total": row.count.total,
            "trunk": row.trunk,
            "shared": row.count.shared,
            "per_domain": dict(zip(names, row.count.own, strict=True)),
            "ratio_to_shared": row.count.total / rows[1].count.total,
        }
        for row in rows
    ]


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "plan", None, "Of data_prep.plan; the paper's five domains if not given."
    )
    flags.DEFINE_list("domains", [], "Domains of the plan; all if empty.")
    flags.DEFINE_bool("json", False, "Print JSON: every domain by name.")
    # --adapter: of the universal networks, only this.
    command_flags.define(NetworkConfig)


def main(argv: Sequence[str]) -> None:
    """Prints the tables that the flags ask for."""
    del argv  # flags only; `command.start` has checked
    domains, options = _settings()
    machine.import_tensorflow()
    tables = {
        "all parameters": all_parameters(domains, **options),
        "stride-1 weights": stride_1_weights(domains, **options),
    }
    if flags.FLAGS.json:
        names = [domain.name for domain in domains]
        content = {key: rows_to_json(rows, names) for key, rows in tables.items()}
        print(json.dumps(content, indent=2))
        return
    print(_explain(domains, options, tables))


def _settings() -> tuple[Sequence[Domain | DomainChannels], dict[str, Any]]:
    values = flags.FLAGS
    if values.plan:
        domains = load_plan(values.plan).select(values.domains).domains
    elif values.domains:
        raise command.InputError(
            "`domains`",
            expected="a `plan` to choose from",
            received=f"{','.join(values.domains)} alone",
        )
    else:
        domains = PAPER_DOMAINS
    flat = [domain.name for domain in domains if max(domain.pools) < 1]
    if flat:
        raise command.InputError(
            values.plan,
            expected="pools above 0 along an axis",
            received=f"0,0,0 for {', '.join(flat)}",
        )
    network = command_flags.read(NetworkConfig)
    options = network.options()
    adapter = options.pop("adapter")
    options["adapters"] = (adapter,) if values["adapter"].present else ADAPTERS
    pools = network.pools
    if pools is not None and max(pools) < 1:
        raise command.InputError(
            "`pools`", expected="at least one above 0", received="0,0,0"
        )
    options["pools"] = pools or (domains[0].pools if len(domains) == 1 else JOINT_POOLS)
    return domains, options


def _explain(domains, options, tables: Mapping[str, Sequence[Row]]) -> str:
    pools = ",".join(map(str, options["pools"]))
    return "\n".join(
        [
            f"{len(domains)} domains, base_channels {options['base_channels']}, pools "
            f"{pools} (independent: each its own)",
            "",
            "All parameters: kernels, biases, γ and β.",
            format_rows(tables["all parameters"]),
            "",
            "Weights of the trunk's stride-1 convolutions, as in the paper's table "
            "3(a): no biases, norms,",
            "strided convolutions, stem, head, deep supervision.",
            format_rows(tables["stride-1 weights"]),
            "",
            "per domain: what one domain alone reads, so what a further one adds",
            "ratio: of the total to that of the shared network",
        ]
    )


def run() -> None:
    """Entry point: parses the flags and calls `main`."""
    define_flags()
    command.start(main)


if __name__ == "__main__":
    run()
