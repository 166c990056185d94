"""Composes models: adds or removes domains, and merges the domains of several models.

Shared variables are copied once, and a domain's own variables for each domain that is
kept. Nothing is computed, so variables and logits stay bit-identical, which `checksums`
verifies. `compose_models` works on folders, the other functions in memory.

Case names are not copied: for each copied domain the new model contains only the
numbers of cases. It records the names of domains that were removed, since the trunk was
trained on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from u2net_tf import locks
from u2net_tf.config.inference import ComposeConfig
from u2net_tf.errors import InputError
from u2net_tf.models import checksums
from u2net_tf.models.build import build_network
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.composed_models import (
    ComposedModel,
    require_place_for_model,
    save_composed,
)
from u2net_tf.models.loading import load_network, load_spec_and_state
from u2net_tf.models.seen_cases import seen_domains
from u2net_tf.models.spec import CaseCounts, ModelSpec, differing_setting
from u2net_tf.models.variables import copy_variables, identical
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.plan.domains import Domain

RANDOM, MEAN = "random", "mean"


class _Source(NamedTuple):
    """The source of a domain of the composed model."""

    model: str
    domain: Domain
    counts: CaseCounts
    variables: Sequence[keras.Variable]


def with_domain(spec: ModelSpec, domain: Domain) -> ModelSpec:
    """Returns the specification with one more domain appended.

    Case names of the other domains are removed.

    Raises:
      InputError: if the model has a domain of that name.
    """
    if domain.name in spec.plan.names:
        raise InputError(
            "`domain`",
            expected="a domain that the model does not have",
            received=domain.name,
        )
    spec = without_case_names(spec)
    domains = (*spec.plan.domains, domain)
    return dataclasses.replace(
        spec, plan=dataclasses.replace(spec.plan, domains=domains)
    )


def extend(
    spec: ModelSpec, parent: DomainModel, domain: Domain, *, init: str, **kwargs: Any
) -> tuple[ModelSpec, DomainModel]:
    """Builds a network with an additional domain and copies the existing variables.

    Args:
      spec: specification of the parent.
      parent: network with its weights.
      domain: the new domain.
      init: initial values of the new domain's depthwise filters (or adapters) and norms
        in the trunk: "random" as in a new network, "mean" of the parent's domains, or
        the name of a domain to copy them from. Stem, head and deep supervision are
        always initialized randomly, since their shapes depend on the domain's
        modalities and classes.
      **kwargs: arguments of `build_network`.

    Returns:
      The specification and the network.

    Raises:
      InputError: if the parent already has the domain, or has none named `init`.
    """
    sources = _sources(spec, init)
    extended = with_domain(spec, domain)
    network = build_network(extended, **kwargs)
    copy_variables(parent.shared_variables, network.shared_variables)
    for index in range(parent.num_domains):
        copy_variables(parent.domain_variables(index), network.domain_variables(index))
    if sources:
        new = network.trunk_domain_variables(parent.num_domains)
        set_to_mean_of_domains(new, parent, sources)
    return extended, network


def set_to_mean_of_domains(
    variables: Sequence[keras.Variable], network: DomainModel, domains: Sequence[int]
) -> None:
    """Sets a domain's variables of the trunk to the mean of those of other domains.

    Args:
      variables: the variables to set.
      network: the network of the other domains.
      domains: indices of these domains.
    """
    sources = zip(
        *(network.trunk_domain_variables(index) for index in domains), strict=True
    )
    for variable, values in zip(variables, sources, strict=True):
        arrays = [value.numpy() for value in values]
        # The mean of a single array is bit-identical to it.
        variable.assign(np.mean(arrays, axis=0, dtype=np.float64))


def _sources(spec: ModelSpec, init: str) -> list[int]:
    if init == RANDOM:
        return []
    if init == MEAN:
        return list(range(len(spec.plan.domains)))
    if init not in spec.plan.names:
        raise InputError(
            "`init`",
            expected=f"{RANDOM}, {MEAN} or one of {', '.join(spec.plan.names)}",
            received=init,
        )
    return [spec.plan.index(init)]


def compose_models(config: ComposeConfig) -> ComposedModel:
    """Writes one model with the domains of several; see `compose`.

    An existing model is kept if it is bit-identical, for example after a run that was
    killed before its end.

    Args:
      config: the settings. The newest intact checkpoint of each model is read.

    Raises:
      InputError: if the new folder has a different model or another run writes to it,
        one of the other folders has no model, or the models cannot be composed.
      StoppedError: if a domain has changed.
      OSError: if the model cannot be written.
    """
    with locks.locked(config.model_dir):
        return _compose_models(config)


def _compose_models(config: ComposeConfig) -> ComposedModel:
    require_place_for_model(config.model_dir)
    models = {
        folder: load_network(folder, prune_to=config.prune_to)[:2]
        for folder in config.models
    }
    spec, network = compose(models, config.remove)
    before: dict[str, str] = {}
    for source in models.values():
        before = checksums.of_domains(*source) | before
    kept = {name: before[name] for name in spec.plan.names}
    seen = seen_domains(map(load_spec_and_state, config.models), spec)
    return save_composed(config.model_dir, spec, network, kept, initial_cases=seen)


def compose(
    models: Mapping[str, tuple[ModelSpec, DomainModel]], remove: Sequence[str] = ()
) -> tuple[ModelSpec, DomainModel]:
    """Builds one network with the domains of several that have the same trunk.

    Args:
      models: name for error messages, such as the folder -> specification and network;
        at least one. Settings and shared variables must be identical.
      remove: domains to leave out.

    Returns:
      The specification, without case names, and the network. The first model's domains
      come first, followed by the new ones of the next model, and so on.

    Raises:
      InputError: if settings or shared variables differ, domains of the same name
        differ, no model has a domain to remove, or no domain would be left.
    """
    models = {
        name: (without_case_names(spec), network)
        for name, (spec, network) in models.items()
    }
    first_spec, first = next(iter(models.values()))
    sources = _sources_by_domain(models, remove)
    domains = tuple(source.domain for source in sources.values())
    composed = dataclasses.replace(
        first_spec,
        plan=dataclasses.replace(first_spec.plan, domains=domains),
        case_counts=tuple(source.counts for source in sources.values()),
    )
    network = build_network(composed)
    copy_variables(first.shared_variables, network.shared_variables)
    for index, source in enumerate(sources.values()):
        copy_variables(source.variables, network.domain_variables(index))
    return composed, network


def _sources_by_domain(
    models: Mapping[str, tuple[ModelSpec, DomainModel]], remove: Sequence[str]
) -> dict[str, _Source]:
    found = {name for spec, _ in models.values() for name in spec.plan.names}
    unknown = sorted(set(remove) - found)
    if unknown:
        raise InputError(
            "`remove`",
            expected=f"some of {', '.join(sorted(found))}",
            received=", ".join(unknown),
        )
    first = next(iter(models))
    sources: dict[str, _Source] = {}
    for name, (spec, network) in models.items():
        _check_same_parent(first, models[first], name, models[name])
        for index, domain in enumerate(spec.plan.domains):
            if domain.name in remove:
                continue
            own = _Source(
                name,
                domain,
                spec.count_cases(index),
                network.domain_variables(index),
            )
            source = sources.setdefault(domain.name, own)
            if (source.domain, source.counts) != (domain, own.counts) or not identical(
                source.variables, own.variables
            ):
                raise InputError(
                    name,
                    expected=f"the same domain {domain.name} as in {source.model}",
                    received="a different domain of this name",
                    hint="Remove it from one of the models first",
                )
    if not sources:
        raise InputError(
            "`remove`", expected="at least one remaining domain", received="none"
        )
    return sources


def _check_same_parent(
    first_name: str,
    first_model: tuple[ModelSpec, DomainModel],
    name: str,
    model: tuple[ModelSpec, DomainModel],
) -> None:
    (first_spec, first), (spec, network) = first_model, model
    if (difference := differing_setting(first_spec, spec)) is not None:
        setting, expected, received = difference
        raise InputError(
            name,
            expected=f"{setting} {expected} as in {first_name}",
            received=received,
        )
    if not identical(first.shared_variables, network.shared_variables):
        raise InputError(
            name,
            expected=f"shared variables bit-identical to those of {first_name}",
            received="different ones",
            hint="The models were not adapted from the same parent",
        )
