"""Converts raw scans to TFRecord shards and writes a manifest per domain.

  python -m data_prep.convert --plan=plan.json --data_dir=DIR

An interrupted run resumes with the missing cases when rerun. Domains that are already
converted are not converted again; it is an error if their plan, the flags, or the size
or modification time of a raw file has changed since, unless --overwrite is given.
Skipped cases are tried again, and if one of them is usable now, its domain is converted
again.
"""

from __future__ import annotations

import collections
import functools
import pathlib
from typing import TYPE_CHECKING

from data_prep.config import ConvertConfig
from u2net_tf import command, machine
from u2net_tf.wording import quantity

if TYPE_CHECKING:
    from u2net_tf.shards.manifest import Manifest


def main(config: ConvertConfig) -> None:
    """Converts the domains of the plan."""
    from data_prep.convert import convert_domains
    from u2net_tf.plan.plan_file import load_plan

    # Checked early: it is imported only after all cases of a domain are preprocessed.
    machine.require_tensorflow()
    data_dir = pathlib.Path(config.conversion.data_dir)
    progress = command.progress_every(config.log.log_every_seconds)
    convert_domains.convert(
        load_plan(config.plan),
        config.conversion,
        progress=progress,
        on_finished=functools.partial(_report, data_dir),
    )


def _report(data_dir: pathlib.Path, manifest: Manifest, converted_before: bool) -> None:
    sizes = collections.Counter(entry.group for entry in manifest.cases)
    *others, (group, size) = sizes.items()
    counts = ", ".join(f"{size} {name}" for name, size in others)
    counts += ", " * bool(others) + quantity(size, f"{group} case")
    folder = data_dir / manifest.domain
    shards = {entry.shard for entry in manifest.cases}
    megabytes = sum((folder / name).stat().st_size for name in shards) / 1e6
    note = " (already converted)" if converted_before else ""
    print(
        f"{folder}: {counts}, {megabytes:.1f} MB in {quantity(len(shards), 'shard')}"
        f"{note}"
    )
    for case, reason in manifest.skipped.items():
        print(f"  skipped {case}: {command.name_flags(reason)}")


def run() -> None:
    """Entry point of `u2net-convert`."""
    command.start(main, ConvertConfig)


if __name__ == "__main__":
    run()
