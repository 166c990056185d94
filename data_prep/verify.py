"""Re-reads shards and holds them against their manifests.

python -m data_prep.verify --data_dir=DIR
"""

from __future__ import annotations

import hashlib
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from data_prep.config import VerifyConfig
from u2net_tf import command, machine

if TYPE_CHECKING:
    from u2net_tf.domains import Domain
    from u2net_tf.manifest import CaseEntry, Manifest


def main(config: VerifyConfig) -> None:
    """Verifies every domain; exit status 1 if anything is wrong."""
    from u2net_tf.manifest import load_converted

    plan, manifests = load_converted(config.data_dir, config.domains)
    machine.import_tensorflow()
    problems = []
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        found = verify_domain(config.data_dir, domain, manifest)
        state = "as in the manifest" if not found else f"{len(found)} problem(s)"
        print(f"{domain.name}: {len(manifest.cases)} cases, {state}")
        problems += found
    if problems:
        hint = (
            "python -m data_prep.convert makes a domain again whose faulty shards or "
            "manifest.json have been removed"
        )
        sys.exit("\n".join(["error: not as converted:", *problems, hint]))
    total = sum(len(manifest.cases) for manifest in manifests)
    print(f"{total} cases of {len(manifests)} domains verified in {config.data_dir}")


def verify_domain(
    data_dir: str | pathlib.Path, domain: Domain, manifest: Manifest
) -> list[str]:
    """Re-reads one domain.

    Args:
      data_dir: folder that convert wrote.
      domain: the domain.
      manifest: of its shards.

    Returns:
      What is wrong, a line each, every line naming a file; empty if nothing is.
    """
    from tqdm import tqdm

    folder = pathlib.Path(data_dir) / domain.name
    expected: dict[str, list] = {}
    for entry in manifest.cases:
        expected.setdefault(entry.shard, []).append(entry)
    problems = _manifest_problems(folder / "manifest.json", domain, manifest)
    problems += [
        f"{path}: expected a shard of the manifest, found one that it does not name"
        for path in sorted(folder.glob("*.tfrecord"))
        if path.name not in expected
    ]
    shards = tqdm(expected.items(), domain.name, unit="shard", disable=None)
    for name, entries in shards:
        problems += _shard_problems(folder / name, entries, domain, manifest)
    return problems


def _manifest_problems(
    path: pathlib.Path, domain: Domain, manifest: Manifest
) -> list[str]:
    """Holds the manifest's cases against those of the plan."""
    from u2net_tf.domains import SPLITS

    problems = []
    for split in SPLITS:
        found = [entry.case for entry in manifest.entries(split)]
        wanted = [name for name in domain.cases(split) if name not in manifest.skipped]
        wrong = sorted(set(found) ^ set(wanted))
        if wrong or len(found) != len(wanted):
            problems.append(
                f"{path}: expected the {len(wanted)} {split} cases of the plan, found "
                f"{len(found)}; not in both: {', '.join(wrong) or 'none'}"
            )
    return problems


def _shard_problems(
    path: pathlib.Path, entries: list[CaseEntry], domain: Domain, manifest: Manifest
) -> Iterator[str]:
    import tensorflow as tf

    from u2net_tf.records import COMPRESSION_TYPES

    if not path.is_file():
        yield f"{path}: expected a shard, found none"
        return
    kind = COMPRESSION_TYPES[manifest.compression]
    count = 0
    try:
        # One megabyte: TensorFlow warns where it is left to choose.
        dataset = tf.data.TFRecordDataset(str(path), kind, buffer_size=1 << 20)
        for serialized in dataset:
            if count < len(entries):
                problem = _record_problem(serialized.numpy(), entries[count], domain)
                if problem:
                    yield f"{path}: {problem}"
            count += 1
    except tf.errors.OpError as error:
        yield (
            f"{path}: expected {len(entries)} records, found a truncated or corrupted "
            f"one after {count}: {error.message}"
        )
        return
    if count != len(entries):
        yield f"{path}: expected {len(entries)} records, found {count}"


def _record_problem(serialized: bytes, entry: CaseEntry, domain: Domain) -> str:
    import numpy as np
    import tensorflow as tf

    from u2net_tf import records

    if hashlib.sha256(serialized).hexdigest() != entry.checksum:
        return f"expected {entry.case} with checksum {entry.checksum}, found another"
    try:
        record = records.decode(serialized)
    except tf.errors.OpError as error:
        return f"expected a record of {entry.case}, found none: {error.message}"
    shape = (*entry.shape, domain.num_modalities)
    if record.image.shape != shape:
        return f"{entry.case}: expected shape {shape}, found {record.image.shape}"
    if not np.isfinite(record.image).all():
        return f"{entry.case}: expected finite voxels, found others"
    counts = records.count_labels(record.labels, domain.num_classes)
    if counts.tolist() != entry.label_voxels:
        return (
            f"{entry.case}: expected {entry.label_voxels} voxels per class, found "
            f"{counts.tolist()}"
        )
    return ""


def run() -> None:
    """Entry point of `u2net-verify`."""
    command.start(main, VerifyConfig)


if __name__ == "__main__":
    run()
