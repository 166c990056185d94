r"""Plans how each domain is preprocessed, split and trained, and writes plan.json.

  python -m data_prep.plan --survey=work --output=work/plan.json

The plan may be edited by hand. Six tasks of the Medical Segmentation Decathlon have
published network settings, which are used for them; the settings of all other domains
follow a rule (`data_prep/plan/network_settings.py`). Preprocessing is that of the
paper, or with --flagfile=upstream that of the published code. --splits_file is a JSON
file such as

  {"Task04_Hippocampus": {"train": ["hippocampus_001", …], "test": […]}}
  {"Task04_Hippocampus": {"fold0": {"train": […], "val": […]}}}

or the splits_final.json of nnU-Net.
"""

from __future__ import annotations

from absl import flags

from data_prep.config import PlanConfig
from u2net_tf import command


def main(config: PlanConfig) -> None:
    """Plans the domains, writes the plan and prints it as a table."""
    from data_prep.plan.report import format_plan
    from data_prep.plan.write_plan import write_plan

    _require_single_split_source(config)
    planned, written = write_plan(config)
    print(command.name_flags(format_plan(planned)))
    print(f"wrote {config.output}" if written else f"{config.output} already exists")


def _require_single_split_source(config: PlanConfig) -> None:
    """Checks that flags of the random split are not given with a splits file."""
    if config.splits_file is None:
        return
    for name, value in config.split.flat().items():
        # Given explicitly, even if with the default value.
        if flags.FLAGS[name].present:
            raise command.InputError(
                f"`{name}`",
                expected="no value with `splits_file`, which lists the cases",
                received=repr(value),
            )


def run() -> None:
    """Entry point of `u2net-plan`."""
    command.start(main, PlanConfig)


if __name__ == "__main__":
    run()
