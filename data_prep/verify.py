"""Re-reads shards and holds them against their manifests.

python -m data_prep.verify --data_dir=DIR
"""

from __future__ import annotations

import hashlib
import pathlib
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from u2net_tf import command

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder that convert wrote.")
_DOMAINS = flags.DEFINE_list("domains", [], "Domains to verify; all if empty.")


def main(argv: Sequence[str]) -> None:
    """Verifies every domain; exit status 1 if anything is wrong."""
    del argv
    command.required(_DATA_DIR)
    from u2net_tf.manifest import load_converted

    plan, manifests = load_converted(_DATA_DIR.value, _DOMAINS.value)
    problems = []
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        found = verify_domain(_DATA_DIR.value, domain, manifest)
        state = "as in the manifest" if not found else f"{len(found)} problems"
        print(f"{domain.name}: {len(manifest.cases)} cases, {state}")
        problems += found
    if problems:
        sys.exit("\n".join(["error: these shards are not whole:", *problems]))
    total = sum(len(manifest.cases) for manifest in manifests)
    print(f"{total} cases of {len(manifests)} domains verified in {_DATA_DIR.value}")


def verify_domain(data_dir, domain, manifest) -> list[str]:
    """Re-reads one domain.

    Args:
      data_dir: folder that convert wrote.
      domain: the `Domain`.
      manifest: its `Manifest`.

    Returns:
      What is wrong, a line each, every line naming a file; empty if nothing is.
    """
    from tqdm import tqdm

    folder = pathlib.Path(data_dir) / domain.name
    expected: dict[str, list] = {}
    for entry in manifest.cases:
        expected.setdefault(entry.shard, []).append(entry)
    problems = [
        f"{path}: expected a shard of the manifest, found one that it does not name"
        for path in sorted(folder.glob("*.tfrecord"))
        if path.name not in expected
    ]
    shards = tqdm(expected.items(), domain.name, unit="shard", disable=None)
    for name, entries in shards:
        problems += _shard_problems(folder / name, entries, domain, manifest)
    return problems


def _shard_problems(path, entries, domain, manifest) -> Iterator[str]:
    import tensorflow as tf

    from u2net_tf.records import COMPRESSION_TYPES

    if not path.is_file():
        yield f"{path}: expected a shard, found none"
        return
    kind = COMPRESSION_TYPES[manifest.compression]
    count = 0
    try:
        for serialized in tf.data.TFRecordDataset(str(path), kind):
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


def _record_problem(serialized: bytes, entry, domain) -> str:
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
    counts = np.bincount(record.labels.ravel(), minlength=domain.num_classes)
    if counts.tolist() != entry.label_voxels:
        return (
            f"{entry.case}: expected {entry.label_voxels} voxels per class, found "
            f"{counts.tolist()}"
        )
    return ""


def run() -> None:
    """Entry point of `u2net-verify`."""
    command.start(main)


if __name__ == "__main__":
    run()
