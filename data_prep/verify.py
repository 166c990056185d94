"""Re-reads shards and checks them against their manifests.

python -m data_prep.verify --data_dir=DIR
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from data_prep.config import VerifyConfig
from u2net_tf import command, machine
from u2net_tf.progress import Progress, silent
from u2net_tf.wording import quantity

if TYPE_CHECKING:
    from u2net_tf.plan.domains import Domain
    from u2net_tf.shards.manifest import Manifest


def main(config: VerifyConfig) -> None:
    """Verifies every domain; exit status 1 if anything is wrong."""
    from u2net_tf.shards.manifest import load_converted

    names: Sequence[str] = config.domains
    absent: Sequence[str] = ()
    if not names:
        names, absent = _domains_there(pathlib.Path(config.data_dir))
    plan, manifests = load_converted(config.data_dir, tuple(names), check_plan=False)
    machine.import_tensorflow()
    progress = command.progress_every(config.log.log_every_seconds)
    problems = []
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        found = verify_domain(config.data_dir, domain, manifest, progress=progress)
        state = quantity(len(found), "problem") if found else "as in the manifest"
        print(f"{domain.name}: {quantity(len(manifest.cases), 'case')}, {state}")
        problems += found
    if problems:
        hint = (
            "python -m data_prep.convert makes a domain again whose faulty shards or "
            "manifest.json have been removed"
        )
        sys.exit("\n".join(["error: not as converted:", *problems, hint]))
    total = sum(len(manifest.cases) for manifest in manifests)
    counts = f"{quantity(total, 'case')} of {quantity(len(manifests), 'domain')}"
    print(f"{counts} verified in {config.data_dir}")
    if absent:
        print(f"not converted, of the plan's domains: {', '.join(absent)}")


def _domains_there(data_dir: pathlib.Path) -> tuple[list[str], list[str]]:
    """Domains of the plan that have a folder, all if none has, and those without."""
    from u2net_tf.plan.plan_file import load_plan

    names = load_plan(data_dir / "plan.json").names
    there = [name for name in names if (data_dir / name).is_dir()]
    return there or list(names), [name for name in names if name not in there]


def verify_domain(
    data_dir: str | pathlib.Path,
    domain: Domain,
    manifest: Manifest,
    *,
    progress: Progress = silent,
) -> list[str]:
    """Re-reads one domain.

    Args:
      data_dir: folder that convert wrote.
      domain: the domain.
      manifest: of its shards.
      progress: shows how many shards are read.

    Returns:
      Problems, a line each that names a file; empty if there are none.
    """
    from u2net_tf.shards.reading import shard_problems

    folder = pathlib.Path(data_dir) / domain.name
    expected: dict[str, list] = {}
    for entry in manifest.cases:
        expected.setdefault(entry.shard, []).append(entry)
    problems = list(_manifest_problems(folder / "manifest.json", domain, manifest))
    problems += [
        command.InputError(
            path,
            expected="a shard of the manifest",
            received="one that it does not name",
        )
        for path in sorted(folder.glob("*.tfrecord"))
        if path.name not in expected
    ]
    shards = progress(expected.items(), domain.name, unit="shard")
    for name, entries in shards:
        problems += shard_problems(folder / name, entries, domain, manifest)
    return [str(problem) for problem in problems]


def _manifest_problems(
    path: pathlib.Path, domain: Domain, manifest: Manifest
) -> Iterator[command.InputError]:
    """Compares the manifest's cases with those of the plan."""
    for difference in manifest.differences(domain):
        yield difference.within(path)


def run() -> None:
    """Entry point of `u2net-verify`."""
    command.start(main, VerifyConfig)


if __name__ == "__main__":
    run()
