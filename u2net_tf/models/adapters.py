"""Extracts adapters from models and adds adapters to models, in memory.

Adding float32 adapters yields a model that is bit-identical to the one that
`composition` makes of the models that the adapters were extracted from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from u2net_tf.errors import InputError
from u2net_tf.models import checksums
from u2net_tf.models.adapter_files import Adapter, AdapterFile
from u2net_tf.models.adapter_fit import require_fit
from u2net_tf.models.array_checksum import checksum_of_arrays
from u2net_tf.models.build import build_network
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.spec import ModelSpec
from u2net_tf.models.variables import copy_variables, own_by_name
from u2net_tf.networks.domain_model import DomainModel


def of_domain(
    spec: ModelSpec,
    network: DomainModel,
    name: str,
    *,
    licence: str = "",
    card: str = "",
) -> Adapter:
    """Returns a domain of a model as an adapter, without case names.

    Args:
      spec: specification of the model.
      network: network of the model that has the domain.
      name: name of the domain.
      licence: see `Adapter`.
      card: see `Adapter`.

    Raises:
      InputError: if the model has no such domain.
    """
    index = spec.plan.index(name)
    spec = without_case_names(spec)
    single = dataclasses.replace(
        spec, plan=spec.plan.select([name]), case_counts=(spec.count_cases(index),)
    )
    variables = {n: v.numpy() for n, v in own_by_name(network, index).items()}
    return Adapter(single, checksums.of_trunk(network), variables, licence, card)


def with_adapters(
    spec: ModelSpec,
    network: DomainModel,
    adapters: Sequence[AdapterFile],
    *,
    model: str,
) -> tuple[ModelSpec, DomainModel]:
    """Returns a model with the domains of adapters appended to its own.

    A domain that the model already has is skipped if it is bit-identical.

    Args:
      spec: specification of the model.
      network: network of the model to extend.
      adapters: the files.
      model: name of the model for error messages, such as its folder.

    Raises:
      InputError: if an adapter does not fit; names the file and the reason.
    """
    spec = without_case_names(spec)
    added = _read_new(spec, network, adapters, model)
    if not added:
        return spec, network
    specs = [without_case_names(adapter.spec) for adapter in added.values()]
    domains = [domain for each in (spec, *specs) for domain in each.plan.domains]
    extended = dataclasses.replace(
        spec,
        plan=dataclasses.replace(spec.plan, domains=tuple(domains)),
        case_counts=tuple(c for each in (spec, *specs) for c in each.case_counts),
    )
    composed = build_network(extended)
    copy_variables(network.shared_variables, composed.shared_variables)
    for index in range(network.num_domains):
        copy_variables(
            network.domain_variables(index), composed.domain_variables(index)
        )
    for index, (file, adapter) in enumerate(added.items(), network.num_domains):
        own = own_by_name(composed, index)
        file.require_shapes({name: tuple(v.shape) for name, v in own.items()})
        for name, variable in own.items():
            variable.assign(adapter.variables[name])
    return extended, composed


def _read_new(
    spec: ModelSpec, network: DomainModel, adapters: Sequence[AdapterFile], model: str
) -> dict[AdapterFile, Adapter]:
    """Reads the adapters whose domains the model does not have yet."""
    trunk = checksums.of_trunk(network)
    known = {
        name: (model, of_domain(spec, network, name))
        for name in spec.plan.names
        if name in {file.name for file in adapters}
    }
    added = {}
    for file in adapters:
        require_fit(file, spec, trunk, model=model)
        adapter = file.read()
        place, other = known.setdefault(file.name, (str(file.path), adapter))
        if other is adapter:
            added[file] = adapter
        elif not _is_same(other, adapter):
            raise InputError(
                file.path,
                expected=f"the same domain {file.name} as in {place}",
                received="a different domain of this name",
                hint="Domain names must be unique: remove the other domain first",
            )
    return added


def _is_same(one: Adapter, other: Adapter) -> bool:
    """Returns whether two adapters for the same trunk are bit-identical."""
    domain, counts = (
        [getattr(without_case_names(each.spec), name) for each in (one, other)]
        for name in ("plan", "case_counts")
    )
    return (
        domain[0].domains == domain[1].domains
        and counts[0] == counts[1]
        and checksum_of_arrays(one.variables) == checksum_of_arrays(other.variables)
    )
