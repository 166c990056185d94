"""The cases to score of each domain: those that a model names, or those of a plan."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from u2net_tf.errors import InputError
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain, Label
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.wording import first_few

# What a model and the plan of its cases must agree in, besides values and names of
# classes: else scans are prepared or scored in another way than the plan says.
_PREPARATION = ("modalities", "spacing_mm", "preprocessing")


class ServedDomain(NamedTuple):
    """A domain and the model that serves it.

    Attributes:
      folder: the folder of the model.
      spec: specification of the model.
      name: name of the domain.
    """

    folder: pathlib.Path
    spec: ModelSpec
    name: str


def list_cases(
    served: Sequence[ServedDomain], plan: str | None, fold: int | None
) -> list[Domain]:
    """Returns the domains of models, with the cases to choose from.

    Args:
      served: the domains to score.
      plan: path of a plan that lists cases; those of domains that are not in it, and of
        all domains if None, are the model's.
      fold: fold of that plan to validate on; None to train on all.

    Raises:
      InputError: if the cases of a domain are listed nowhere, or the plan contradicts a
        model or has none of the domains.
    """
    if plan is None and fold is not None:
        raise InputError("`fold`", expected="no value without a `plan`", received=fold)
    listed = {}
    if plan is not None:
        names = [one.name for one in served]
        domains = [d for d in load_plan(plan).domains if d.name in names]
        if not domains:
            raise InputError(
                f"{plan}: domains",
                expected=f"some of {first_few(names)}",
                received=first_few(load_plan(plan).names),
            )
        listed = {domain.name: domain.with_fold(fold) for domain in domains}
    found = []
    missing = []
    for folder, spec, name in served:
        index = spec.plan.index(name)
        domain = spec.plan.domains[index]
        if name in listed:
            domain = _with_cases_of(domain, listed[name], folder, plan)
        elif not spec.has_case_names(index):
            missing.append(name)
        found.append(domain)
    if missing:
        others = [one.name for one in served if one.name not in missing]
        raise InputError(
            "`plan`",
            expected=f"the plan that lists the cases of {first_few(missing)}, which "
            "the model does not name",
            received=plan or "none",
            hint=f"Or choose {first_few(others)} with `domains`" if others else "",
        )
    return found


def _with_cases_of(
    domain: Domain, listed: Domain, folder: pathlib.Path, plan: str | None
) -> Domain:
    """The domain of a model with the cases that a plan lists for it."""
    pairs = [
        (name, getattr(domain, name), getattr(listed, name)) for name in _PREPARATION
    ]
    pairs.append(("labels", _classes(domain.labels), _classes(listed.labels)))
    for field, wanted, received in pairs:
        if wanted != received:
            raise InputError(
                f"{plan}: {domain.name}: {field}",
                expected=f"{wanted}, as in {folder}",
                received=received,
            )
    return dataclasses.replace(
        domain,
        raw_dir=listed.raw_dir,
        folds=(),
        train=listed.train,
        validation=listed.validation,
        test=listed.test,
    )


def _classes(labels: Sequence[Label]) -> dict[str, tuple[int, ...]]:
    return {label.name: label.values for label in labels}
