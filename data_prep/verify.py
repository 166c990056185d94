"""Re-reads shards and checks them against their manifests.

  python -m data_prep.verify --data_dir=DIR

Every shard is read completely. Shards and cases that differ from the manifest are
listed at the end; the exit status is then 1.
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
    """Verifies all domains; exits with status 1 if there are problems."""
    from u2net_tf.shards.manifest import load_converted

    names: Sequence[str] = config.domains
    not_converted: Sequence[str] = ()
    if not names:
        names, not_converted = _find_converted(pathlib.Path(config.data_dir))
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
            "Remove the faulty shards or manifest.json and run "
            "python -m data_prep.convert to convert a domain again"
        )
        sys.exit("\n".join(["error: verification failed:", *problems, hint]))
    total = sum(len(manifest.cases) for manifest in manifests)
    counts = f"{quantity(total, 'case')} of {quantity(len(manifests), 'domain')}"
    print(f"{counts} verified in {config.data_dir}")
    if not_converted:
        print(f"domains of the plan that are not converted: {', '.join(not_converted)}")


def _find_converted(data_dir: pathlib.Path) -> tuple[list[str], list[str]]:
    """Returns the plan's domains with a folder, all if none has one, and the rest."""
    from u2net_tf.plan.plan_file import load_plan

    names = load_plan(data_dir / "plan.json").names
    converted = [name for name in names if (data_dir / name).is_dir()]
    others = [name for name in names if name not in converted]
    return converted or list(names), others


def verify_domain(
    data_dir: str | pathlib.Path,
    domain: Domain,
    manifest: Manifest,
    *,
    progress: Progress = silent,
) -> list[str]:
    """Verifies one domain by reading all of its shards.

    Args:
      data_dir: folder that convert wrote.
      domain: the domain as planned.
      manifest: manifest of its shards.
      progress: shows how many shards are read.

    Returns:
      Problems, one line each with the name of the file; empty if there are none.
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
            received="one that it does not list",
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
