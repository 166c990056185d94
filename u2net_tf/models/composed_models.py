"""Writes composed models and verifies that their domains are unchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from u2net_tf.models import checksums
from u2net_tf.models.loading import (
    is_saved_model,
    load_network,
    require_no_inner_models,
    require_no_model,
    save_model,
)
from u2net_tf.models.run_state import SeenCases
from u2net_tf.models.spec import ModelSpec
from u2net_tf.models.variables import identical
from u2net_tf.networks.domain_model import DomainModel


@dataclasses.dataclass(frozen=True)
class ComposedModel:
    """A composed model that was written.

    Attributes:
      domains: names of its domains, in order.
      checkpoint: path of the checkpoint.
      checksums: table of checksums that shows that every domain is unchanged.
    """

    domains: tuple[str, ...]
    checkpoint: str
    checksums: str


def require_place_for_model(model_dir: str) -> None:
    """Checks that a folder has no model, or one that an earlier composition wrote.

    Raises:
      InputError: if it has a different model, for example a trained one, or models in
        its subfolders.
    """
    if not is_saved_model(model_dir):
        require_no_model(model_dir)
        require_no_inner_models(model_dir)


def save_composed(
    model_dir: str,
    spec: ModelSpec,
    network: DomainModel,
    before: Mapping[str, str],
    *,
    initial_cases: tuple[SeenCases, ...],
) -> ComposedModel:
    """Writes a composed model, unless it already exists, and verifies it.

    Args:
      model_dir: folder of the new model; see `require_place_for_model`.
      spec: specification of the network.
      network: network of the composed model.
      before: domain -> checksum in the model that the domain was copied from.
      initial_cases: see `seen_cases.seen_domains`.

    Raises:
      InputError: if the folder has a different model.
      StoppedError: if a domain has changed.
      OSError: if the model cannot be written.
    """
    # Compared before anything is written, and again when the model is read back.
    checksums.compare(before, checksums.of_domains(spec, network))
    if is_saved_model(model_dir):
        _require_same(model_dir, spec, network)
    else:
        save_model(model_dir, spec, network, initial_cases=initial_cases)
    return check_composed(model_dir, before)


def check_composed(model_dir: str, before: Mapping[str, str]) -> ComposedModel:
    """Reads a composed model and checks that its domains are unchanged.

    Args:
      model_dir: folder of the model.
      before: see `save_composed`.

    Raises:
      StoppedError: if a domain has changed.
    """
    spec, network, path = load_network(model_dir)
    after = checksums.of_domains(spec, network)
    return ComposedModel(spec.plan.names, path, checksums.compare(before, after))


def _require_same(model_dir: str, spec: ModelSpec, network: DomainModel) -> None:
    """Raises InputError if the folder has a different model."""
    found, saved, _ = load_network(model_dir)
    if not is_same_model((found, saved), (spec, network)):
        require_no_model(model_dir)


def is_same_model(
    first: tuple[ModelSpec, DomainModel], second: tuple[ModelSpec, DomainModel]
) -> bool:
    """Returns whether specifications are equal and variables bit-identical."""
    (spec, network), (other_spec, other) = first, second
    variables, others = (
        list(one.variables_by_path().values()) for one in (network, other)
    )
    return spec == other_spec and identical(variables, others)
