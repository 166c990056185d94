"""Counts the parameters of networks, and those that an additional domain adds.

  python -m u2net_tf.complexity                    # the paper's five domains
  python -m u2net_tf.complexity --plan=plan.json
  python -m u2net_tf.complexity --architecture=unet_sharp

Prints a table for each of two ways of counting, with the independent models, the shared
network and the universal networks. Joint networks use --pools (by default 5,5,5, or the
plan's for a single domain), independent models always the plan's. --adapter selects one
universal network. For UNet#, a third table counts the parameters that remain at each
pruning depth, --gates are counted in the first and the third, and --pools must fit the
depth, but do not change the number of parameters. Networks are built without values,
which takes seconds and almost no memory.
"""

from __future__ import annotations

from u2net_tf import command, machine
from u2net_tf.config.network import ComplexityConfig
from u2net_tf.networks import parameter_report, parameter_table
from u2net_tf.plan.plan_file import load_plan


def main(config: ComplexityConfig) -> None:
    """Prints the tables."""
    domains = _domains(config)
    options = config.options()
    if config.adapter is not None:
        options["adapters"] = (config.adapter,)
    pools = parameter_table.joint_pools(domains, config.pools, depth=options["depth"])
    machine.import_tensorflow()
    text = parameter_report.report(
        domains, pools=pools, as_json=config.json_, **options
    )
    print(text)


def _domains(config: ComplexityConfig) -> parameter_table.Domains:
    if not config.plan:
        if config.domains:
            raise command.InputError(
                "`domains`",
                expected="a `plan` to choose from",
                received=f"{','.join(config.domains)} alone",
            )
        return parameter_table.PAPER_DOMAINS
    domains = load_plan(config.plan).select(config.domains).domains
    flat = [domain.name for domain in domains if max(domain.pools) < 1]
    if flat:
        raise command.InputError(
            config.plan,
            expected="pools above 0 along an axis",
            received=f"0,0,0 for {', '.join(flat)}",
        )
    return domains


def run() -> None:
    """Entry point of `u2net-complexity`."""
    command.start(main, ComplexityConfig)


if __name__ == "__main__":
    run()
