"""The hash of a domain's plan: shards with the same one hold the same voxels."""

from __future__ import annotations

import hashlib
import json

import pydantic

from u2net_tf import migrations
from u2net_tf.plan.domains import Domain, Preprocessing


def plan_hash(domain: Domain) -> str:
    """SHA-256 of everything in the plan that changes the voxels of a domain's shards.

    Patch size, pools, batch size, the clean-up after prediction and which case is in
    which fold or split are not part of it.
    """
    return plan_hashes(domain)[0]


def plan_hashes(domain: Domain) -> tuple[str, str]:
    """The hash, and the one that manifests of format 1 have."""
    adapter = pydantic.TypeAdapter(Preprocessing)
    preprocessing = adapter.dump_python(domain.preprocessing, by_alias=True)
    for name, before in migrations.LATER_PREPROCESSING.items():
        # Shards from before such a field have the same hash.
        if preprocessing[name] == before:
            del preprocessing[name]
    parts = {
        "name": domain.name,
        "modalities": domain.modalities,
        "values": [label.values for label in domain.labels],
        "spacing_mm": domain.spacing_mm,
        "preprocessing": preprocessing,
    }
    splits = [domain.train, domain.validation, domain.test]
    text = json.dumps(parts, sort_keys=True)
    now = hashlib.sha256(text.encode()).hexdigest()
    return now, migrations.plan_hash_with_split(parts, splits)
