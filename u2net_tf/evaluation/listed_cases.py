"""Lists the cases of each domain to score: those of the model or those of a plan."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from u2net_tf.errors import InputError
from u2net_tf.models.run_state import RunState, SeenCases
from u2net_tf.models.seen_cases import seen_cases
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain, Split
from u2net_tf.plan.labels import Label
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.wording import first_few

# Fields in which a model and the plan of its cases must agree, in addition to most of
# the preprocessing and to values and names of classes. Otherwise scans would be
# preprocessed or scored differently.
_SCAN_FIELDS = ("modalities", "spacing_mm")


class ModelDomain(NamedTuple):
    """A domain and its model.

    Attributes:
      folder: the folder of the model.
      spec: specification of the model.
      seen: the cases of the domain that the model was trained on.
    """

    folder: pathlib.Path
    spec: ModelSpec
    seen: SeenCases

    @property
    def name(self) -> str:
        """Name of the domain."""
        return self.seen.domain

    @property
    def domain(self) -> Domain:
        """The domain, with the cases that the model lists."""
        return self.spec.plan.domain(self.name)


def domains_of_model(
    folder: pathlib.Path, spec: ModelSpec, state: RunState
) -> dict[str, ModelDomain]:
    """Returns name -> domain, for all domains of a model.

    Args:
      folder: the folder of the model.
      spec: specification of the model.
      state: state of its run.
    """
    seen = seen_cases(spec, state)
    return {name: ModelDomain(folder, spec, seen[name]) for name in spec.plan.names}


def list_cases(
    chosen: Sequence[ModelDomain], plan: str | None, fold: int | None
) -> list[Domain]:
    """Returns the domains of models, with their cases.

    Args:
      chosen: the domains to score.
      plan: path of a plan that lists cases; for domains that it lacks, and for all
        domains if None, the cases are those listed in the model.
      fold: validation fold of that plan; None if all folds are training cases.

    Raises:
      InputError: if neither model nor plan lists the cases of a domain, or the plan
        contradicts a model or has none of the domains.
    """
    if plan is None and fold is not None:
        raise InputError("`fold`", expected="no value without a `plan`", received=fold)
    listed = {}
    if plan is not None:
        names = [one.name for one in chosen]
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
    for one in chosen:
        domain = one.domain
        if one.name in listed:
            domain = _with_cases_of(domain, listed[one.name], one.folder, plan)
        elif not one.spec.has_case_names(one.spec.plan.index(one.name)):
            missing.append(one.name)
        found.append(domain)
    if missing:
        others = [one.name for one in chosen if one.name not in missing]
        raise InputError(
            "`plan`",
            expected=f"the plan that lists the cases of {first_few(missing)}, which "
            "the model does not list",
            received=plan or "none",
            hint=f"Or choose {first_few(others)} with `domains`" if others else "",
        )
    return found


def list_training_cases(
    chosen: Sequence[ModelDomain], domains: Sequence[Domain], split: Split
) -> tuple[str, ...]:
    """Returns the cases to score that the models were trained on, by their names.

    Args:
      chosen: the domains to score.
      domains: the same domains, with the cases to score.
      split: the split to score.

    Returns:
      "domain/case" of each; none for the split train.
    """
    if split == "train":
        return ()
    found = []
    for one, domain in zip(chosen, domains, strict=True):
        seen = frozenset(one.seen.cases)
        found += [f"{domain.name}/{c}" for c in domain.cases(split) if c in seen]
    return tuple(found)


def list_incomplete(chosen: Sequence[ModelDomain]) -> tuple[str, ...]:
    """Returns the domains whose models do not list all cases they were trained on.

    Args:
      chosen: the domains to score.

    Returns:
      Their names.
    """
    return tuple(one.name for one in chosen if not one.seen.complete)


def _with_cases_of(
    domain: Domain, listed: Domain, folder: pathlib.Path, plan: str | None
) -> Domain:
    """Returns the domain of a model with a plan's cases and regions."""
    pairs: list[tuple[str, Any, Any]] = [
        (name, getattr(domain, name), getattr(listed, name)) for name in _SCAN_FIELDS
    ]
    expected, received = map(_without_statistics, (domain, listed))
    pairs.append(("preprocessing", expected, received))
    pairs.append(("labels", _classes(domain.labels), _classes(listed.labels)))
    pairs.append(("ignore_label", domain.ignore_label, listed.ignore_label))
    for field, expected, received in pairs:
        if expected != received:
            raise InputError(
                f"{plan}: {domain.name}: {field}",
                expected=f"{expected}, as in {folder}",
                received=received,
            )
    return dataclasses.replace(
        domain,
        raw_dir=listed.raw_dir,
        regions=listed.regions,
        folds=(),
        train=listed.train,
        validation=listed.validation,
        test=listed.test,
    )


def _without_statistics(domain: Domain) -> Preprocessing:
    """Returns the preprocessing without statistics of training cases.

    Those of the model apply to all cases.
    """
    return dataclasses.replace(domain.preprocessing, intensity_statistics=None)


def _classes(labels: Sequence[Label]) -> dict[str, tuple[int, ...]]:
    return {label.name: label.values for label in labels}
