r"""Decides how each domain is preprocessed, split and trained: survey -> plan.json.

    python -m data_prep.plan --survey=work --output=work/plan.json

The plan may be edited by hand. The six tasks of the Medical Segmentation Decathlon that
have published settings get those; every other folder gets them by a rule
(`data_prep/plan/network_settings.py`). Preprocessing is the paper's;
--flagfile=upstream takes that of the published code. Lists of cases for --splits_file:

    {"Task04_Hippocampus": {"train": ["hippocampus_001", …], "test": […]}}
    {"Task04_Hippocampus": {"fold0": {"train": […], "val": […]}}}

or nnU-Net's splits_final.json.
"""

from __future__ import annotations

from absl import flags

from data_prep.config import PlanConfig
from u2net_tf import command


def main(config: PlanConfig) -> None:
    """Plans the domains, writes the plan and prints it as a table."""
    from data_prep.plan.report import format_plan
    from data_prep.plan.write_plan import write_plan

    _require_one_kind_of_split(config)
    planned, written = write_plan(config)
    print(command.name_flags(format_plan(planned)))
    print(f"wrote {config.output}" if written else f"{config.output} already exists")


def _require_one_kind_of_split(config: PlanConfig) -> None:
    """Checks that a file that lists the cases and flags that split are not mixed."""
    if config.splits_file is None:
        return
    for name, value in config.split.flat().items():
        # Given at all, even if it is the default.
        if flags.FLAGS[name].present:
            raise command.InputError(
                f"`{name}`",
                expected="no value beside `splits_file`, which lists the cases",
                received=repr(value),
            )


def run() -> None:
    """Entry point of `u2net-plan`."""
    command.start(main, PlanConfig)


if __name__ == "__main__":
    run()
