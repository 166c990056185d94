"""Counts parameters: what a mode costs, and what a further domain adds.

  python -m u2net_tf.complexity                    # the paper's five domains
  python -m u2net_tf.complexity --plan=plan.json

Two ways of counting, each a table of independent models, the shared network and the
universal ones. The joint networks have the pools of --pools (5,5,5 if not given, or the
plan's of a single domain), independent models always the plan's. --adapter chooses one
universal network. Networks are built without values, which takes seconds and next to no
memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from u2net_tf import command, command_flags, machine
from u2net_tf.config.network import NetworkConfig
from u2net_tf.networks import parameter_table
from u2net_tf.plan.plan_file import load_plan


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "plan", None, "Output of data_prep.plan; the paper's five domains if not given."
    )
    flags.DEFINE_list("domains", [], "Domains of the plan; all if empty.")
    flags.DEFINE_bool("json", False, "Print JSON, with every domain by name.")
    # --adapter: of the universal networks, only this.
    command_flags.define(NetworkConfig)


def main(argv: Sequence[str]) -> None:
    """Prints the tables that the flags ask for."""
    del argv  # flags only; `command.start` has checked
    domains = _domains()
    network = command_flags.read(NetworkConfig)
    options = network.options()
    adapter = options.pop("adapter")
    if flags.FLAGS["adapter"].present:
        options["adapters"] = (adapter,)
    pools = parameter_table.joint_pools(domains, network.pools)
    machine.import_tensorflow()
    print(
        parameter_table.report(
            domains, pools=pools, as_json=flags.FLAGS.json, **options
        )
    )


def _domains() -> parameter_table.Domains:
    values = flags.FLAGS
    if not values.plan:
        if values.domains:
            raise command.InputError(
                "`domains`",
                expected="a `plan` to choose from",
                received=f"{','.join(values.domains)} alone",
            )
        return parameter_table.PAPER_DOMAINS
    domains = load_plan(values.plan).select(values.domains).domains
    flat = [domain.name for domain in domains if max(domain.pools) < 1]
    if flat:
        raise command.InputError(
            values.plan,
            expected="pools above 0 along an axis",
            received=f"0,0,0 for {', '.join(flat)}",
        )
    return domains


def run() -> None:
    """Entry point: parses the flags and calls `main`."""
    define_flags()
    command.start(main)


if __name__ == "__main__":
    run()
