"""Writes composed models into folders and shows that domains are as they were."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from u2net_tf.models import checksums
from u2net_tf.models.loading import (
    is_saved_model,
    load_network,
    require_no_model,
    save_model,
)
from u2net_tf.models.spec import ModelSpec
from u2net_tf.models.variables import identical
from u2net_tf.networks.domain_model import DomainModel


@dataclasses.dataclass(frozen=True)
class ComposedModel:
    """What was written into a folder.

    Attributes:
      domains: their names, in order.
      checkpoint: path of the checkpoint.
      checksums: a table that shows that every domain is as it was.
    """

    domains: tuple[str, ...]
    checkpoint: str
    checksums: str


def require_place_for_model(model_dir: str) -> None:
    """Checks that a folder holds no model, or one that may be the one to be written.

    Raises:
      InputError: if it holds a model that was trained.
    """
    if not is_saved_model(model_dir):
        require_no_model(model_dir)


def save_composed(
    model_dir: str, spec: ModelSpec, network: DomainModel, before: Mapping[str, str]
) -> ComposedModel:
    """Writes a composed model, unless the folder holds it, and checks what was written.

    Args:
      model_dir: folder of the new model; see `require_place_for_model`.
      spec: specification of the network.
      network: the network.
      before: domain -> checksum, of the domains that were copied from a model.

    Raises:
      InputError: if the folder holds another model.
      StoppedError: if a domain is not as it was.
      OSError: if the model cannot be written.
    """
    # Checked before anything is written, and again in what was written.
    checksums.compare(before, checksums.of_domains(spec, network))
    if is_saved_model(model_dir):
        _require_same(model_dir, spec, network)
    else:
        save_model(model_dir, spec, network)
    return check_composed(model_dir, before)


def check_composed(model_dir: str, before: Mapping[str, str]) -> ComposedModel:
    """Reads a composed model and checks that the domains are as they were.

    Args:
      model_dir: folder of the model.
      before: as of `save_composed`.

    Raises:
      StoppedError: if a domain is not as it was.
    """
    spec, network, path = load_network(model_dir)
    after = checksums.of_domains(spec, network)
    return ComposedModel(spec.plan.names, path, checksums.compare(before, after))


def _require_same(model_dir: str, spec: ModelSpec, network: DomainModel) -> None:
    """Raises InputError if the model in a folder is another one."""
    found, saved, _ = load_network(model_dir)
    if not is_same_model((found, saved), (spec, network)):
        require_no_model(model_dir)


def is_same_model(
    first: tuple[ModelSpec, DomainModel], second: tuple[ModelSpec, DomainModel]
) -> bool:
    """Whether two models have one specification and bit-identical variables."""
    (spec, network), (other_spec, other) = first, second
    variables, others = (
        list(one.variables_by_path().values()) for one in (network, other)
    )
    return spec == other_spec and identical(variables, others)
