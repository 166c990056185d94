"""Removes case names, which may identify patients, from models to be shared."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from u2net_tf.models.spec import ModelSpec


def without_case_names(
    spec: ModelSpec, names: Collection[str] | None = None
) -> ModelSpec:
    """Returns the specification with numbers of cases instead of case names.

    The folder of the scans is removed, too: `raw_dir` becomes the name of the domain.

    Args:
      spec: specification of a model.
      names: names of the domains whose case names are removed; all if None.
    """
    domains, counts = [], []
    for index, domain in enumerate(spec.plan.domains):
        chosen = names is None or domain.name in names
        if chosen or not spec.has_case_names(index):
            counts.append(spec.count_cases(index))
        if chosen:
            domain = dataclasses.replace(
                domain, raw_dir=domain.name, train=(), validation=(), test=(), folds=()
            )
        domains.append(domain)
    return dataclasses.replace(
        spec,
        plan=dataclasses.replace(spec.plan, domains=tuple(domains)),
        case_counts=tuple(counts),
    )
