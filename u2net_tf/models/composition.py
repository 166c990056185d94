"""Models made of models: a domain added, taken out, or merged from another model.

All of it is copying variables: what domains share once, what is a domain's own for each
domain that goes along. Nothing is computed, so every bit stays as it was, and so does
every logit: `checksums` shows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.models.spec import ModelSpec, build_network
from u2net_tf.plan.domains import Domain

RANDOM, MEAN = "random", "mean"


def with_domain(spec: ModelSpec, domain: Domain) -> ModelSpec:
    """The spec with one more domain, the last.

    Raises:
      InputError: if the model has a domain of that name.
    """
    if domain.name in spec.plan.names:
        raise InputError(
            "`domain`",
            expected="one that the model does not serve",
            received=domain.name,
        )
    domains = (*spec.plan.domains, domain)
    return dataclasses.replace(
        spec, plan=dataclasses.replace(spec.plan, domains=domains)
    )


def extend(spec: ModelSpec, parent, domain: Domain, *, init: str, **kwargs):
    """A network that serves one domain more; the old ones' variables are copied.

    Args:
      spec: of the parent.
      parent: network with its weights.
      domain: the new one.
      init: where the new domain's depthwise filters (or adapters) and norms in the
        trunk start: "random" as in a new network, "mean" of the parent's domains, or
        as those of the domain of this name. Stem, head and deep supervision always
        start at random: they depend on the domain's modalities and classes.
      **kwargs: of `build_network`.

    Returns:
      What the network is, and the network.

    Raises:
      InputError: if the parent serves a domain of that name, or none named `init`.
    """
    sources = _sources(spec, init)
    extended = with_domain(spec, domain)
    network = build_network(extended, **kwargs)
    _copy(parent.shared_variables, network.shared_variables)
    for index in range(parent.num_domains):
        _copy(parent.domain_variables(index), network.domain_variables(index))
    if sources:
        starts = zip(
            *(parent.trunk_domain_variables(index) for index in sources), strict=True
        )
        new = network.trunk_domain_variables(parent.num_domains)
        for variable, values in zip(new, starts, strict=True):
            arrays = [value.numpy() for value in values]
            # Of one array, its own bits.
            variable.assign(np.mean(arrays, axis=0, dtype=np.float64))
    return extended, network


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


def compose(models: Mapping[str, tuple[ModelSpec, object]], remove: Sequence[str] = ()):
    """One network of the domains of several, which share all that is shared.

    Args:
      models: name for error messages, such as the folder -> what it is, and network.
        At least one; all but their domains must be alike, bit for bit.
      remove: domains to leave out.

    Returns:
      What the network is, and the network: the first model's domains in their order,
      then those of the next that are not there yet, and so on.

    Raises:
      InputError: if the models have not the same parent, domains of the same name
        differ, a domain to remove is in none, or none is left.
    """
    parts = list(models.items())
    first_name, (first_spec, first) = parts[0]
    found = {name for spec, _ in models.values() for name in spec.plan.names}
    unknown = sorted(set(remove) - found)
    if unknown:
        raise InputError(
            "`remove`",
            expected=f"some of {', '.join(sorted(found))}",
            received=", ".join(unknown),
        )
    chosen: dict[str, tuple[str, Domain, list]] = {}
    for name, (spec, network) in parts:
        _check_same_parent((first_name, first_spec, first), (name, spec, network))
        for index, domain in enumerate(spec.plan.domains):
            if domain.name in remove:
                continue
            variables = network.domain_variables(index)
            if domain.name not in chosen:
                chosen[domain.name] = (name, domain, variables)
                continue
            other, known, held = chosen[domain.name]
            if known != domain or not identical(held, variables):
                raise InputError(
                    name,
                    expected=f"the domain {domain.name} as in {other}",
                    received="another one of this name",
                    hint="Remove it from one of them first, with `remove`",
                )
    if not chosen:
        raise InputError("`remove`", expected="a domain to be left", received="none")
    domains = tuple(domain for _, domain, _ in chosen.values())
    plan = dataclasses.replace(first_spec.plan, domains=domains)
    composed = dataclasses.replace(first_spec, plan=plan)
    network = build_network(composed)
    _copy(first.shared_variables, network.shared_variables)
    for index, (_, _, variables) in enumerate(chosen.values()):
        _copy(variables, network.domain_variables(index))
    return composed, network


def _check_same_parent(one, other) -> None:
    (first_name, first_spec, first), (name, spec, network) = one, other
    for field in dataclasses.fields(spec):
        wanted, got = getattr(first_spec, field.name), getattr(spec, field.name)
        if field.name != "plan" and wanted != got:
            raise InputError(
                name,
                expected=f"{field.name} {wanted} as in {first_name}",
                received=got,
            )
    if not identical(first.shared_variables, network.shared_variables):
        raise InputError(
            name,
            expected=f"the shared variables of {first_name}, bit for bit",
            received="others",
            hint="The models were not adapted from one parent",
        )


def _copy(sources: Sequence, targets: Sequence) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.assign(source.numpy())


def identical(first: Sequence, second: Sequence) -> bool:
    """Whether two lists of variables hold the same bits."""
    return len(first) == len(second) and all(
        one.numpy().tobytes() == other.numpy().tobytes()
        for one, other in zip(first, second, strict=True)
    )
