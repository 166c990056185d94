"""The hash of a domain's plan, which identifies the voxels of its shards."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pydantic

from u2net_tf import migrations
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.preprocessing import Preprocessing


def plan_hash(domain: Domain) -> str:
    """Returns the SHA-256 of all settings that affect the voxels of a domain's shards.

    It does not cover patch size, pools, batch size, postprocessing or the assignment
    of cases to folds and splits.
    """
    return plan_hashes(domain)[0]


def plan_hashes(domain: Domain) -> tuple[str, str]:
    """Returns the hash, and the hash of manifests of format 1."""
    adapter = pydantic.TypeAdapter(Preprocessing)
    preprocessing = adapter.dump_python(domain.preprocessing, by_alias=True)
    for name, old_value in migrations.LATER_PREPROCESSING.items():
        # Shards that are older than such a field keep their hash.
        if preprocessing[name] == old_value:
            del preprocessing[name]
    parts: dict[str, Any] = {
        "name": domain.name,
        "modalities": domain.modalities,
        "values": [label.values for label in domain.labels],
        "spacing_mm": domain.spacing_mm,
        "preprocessing": preprocessing,
    }
    if domain.ignore_label is not None:
        parts["ignore_label"] = domain.ignore_label
    splits = [domain.train, domain.validation, domain.test]
    text = json.dumps(parts, sort_keys=True)
    current = hashlib.sha256(text.encode()).hexdigest()
    return current, migrations.plan_hash_with_split(parts, splits)
