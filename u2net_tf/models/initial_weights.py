"""Initial weights of a new network, copied from another model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.models.checkpoint_paths import has_model
from u2net_tf.models.checkpoint_reading import CheckpointReader
from u2net_tf.models.composition import set_to_mean_of_domains
from u2net_tf.models.loading import load_network, load_spec, models_by_domain
from u2net_tf.models.run_state import SeenCases
from u2net_tf.models.seen_cases import seen_cases
from u2net_tf.models.spec import ModelSpec, differing_setting
from u2net_tf.models.variables import copy_variables
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.plan.domains import Domain
from u2net_tf.wording import first_few, quantity


def copy_initial_weights(
    model_dir: str | os.PathLike, spec: ModelSpec, network: DomainModel
) -> tuple[SeenCases, ...]:
    """Copies the weights of a model into a network of the same architecture.

    The shared variables are copied, and those of every domain of the same name. In a
    domain that the model lacks, depthwise filters (or adapters) and norms of the trunk
    become the mean of those of the model's domains, and stem, head and deep supervision
    keep their values.

    Args:
      model_dir: folder of the model, whose newest intact checkpoint is read.
      spec: specification of the network.
      network: the network, whose variables are changed.

    Returns:
      The cases that the model was trained on.

    Raises:
      InputError: if the folder has no model, its architecture is another, or a domain
        of the same name has other modalities or classes.
    """
    source_spec, source, checkpoint = load_network(model_dir)
    seen = seen_cases(source_spec, CheckpointReader(checkpoint).state())
    copied = _matching_domains(source_spec, spec, checkpoint)
    copy_variables(source.shared_variables, network.shared_variables)
    for index, name in enumerate(spec.plan.names):
        if name in copied:
            copy_variables(
                source.domain_variables(source_spec.plan.index(name)),
                network.domain_variables(index),
            )
        else:
            set_to_mean_of_domains(
                network.trunk_domain_variables(index), source, range(source.num_domains)
            )
    others = [name for name in spec.plan.names if name not in copied]
    logging.info(
        "initial weights: shared variables%s of %s%s",
        f" and those of {first_few(copied)}" if copied else "",
        checkpoint,
        f"; those of {first_few(others)} from the mean of its domains"
        if others
        else "",
    )
    for domain in spec.plan.domains:
        if domain.name in seen:
            _warn_of_seen_cases(seen[domain.name], domain, checkpoint)
    return tuple(seen.values())


def require_initial_weights(model_dir: str | os.PathLike, spec: ModelSpec) -> None:
    """Checks that a network can have the weights of a model, without reading them.

    Args:
      model_dir: see `source_of_weights`.
      spec: specification of the network.

    Raises:
      InputError: see `source_of_weights` and `copy_initial_weights`.
    """
    source = source_of_weights(model_dir, spec.plan.names)
    _matching_domains(load_spec(source), spec, source)


def source_of_weights(
    model_dir: str | os.PathLike, domains: Sequence[str]
) -> str | os.PathLike:
    """Returns the folder of the model to copy the weights of a network from.

    Args:
      model_dir: folder of a model with any domains, which is returned, or, for a
        network of one domain, of independent models.
      domains: names of the network's domains.

    Raises:
      InputError: if there is none.
    """
    if has_model(model_dir) or len(domains) > 1:
        return model_dir
    folders = models_by_domain(model_dir)
    if domains[0] not in folders:
        raise InputError(
            f"`init_from`: {model_dir}",
            expected=f"a model, or independent models, one of them of {domains[0]}",
            received=f"independent models of {first_few(list(folders))}",
        )
    return folders[domains[0]]


def _matching_domains(
    source: ModelSpec, spec: ModelSpec, where: str | os.PathLike
) -> list[str]:
    """Returns the domains of a network that a model has, too.

    Raises:
      InputError: if the model's architecture is another, or such a domain has other
        modalities or classes.
    """
    _require_same_architecture(source, spec, where)
    names = [name for name in spec.plan.names if name in source.plan.names]
    for name in names:
        _require_same_task(source.plan.domain(name), spec.plan.domain(name), where)
    return names


def _require_same_architecture(
    source: ModelSpec, spec: ModelSpec, where: str | os.PathLike
) -> None:
    # The size of patches does not change the meaning of weights.
    source = dataclasses.replace(
        source, patch_size=spec.patch_size, resize_method=spec.resize_method
    )
    if (difference := differing_setting(spec, source)) is not None:
        setting, expected, received = difference
        raise InputError(
            f"`init_from`: {where}",
            expected=f"{setting} {expected}, that of the new network",
            received=received,
        )


def _require_same_task(
    source: Domain, domain: Domain, where: str | os.PathLike
) -> None:
    names = tuple(
        (each.modalities, tuple(label.name for label in each.labels))
        for each in (source, domain)
    )
    for what, found, expected in zip(("modalities", "classes"), *names, strict=True):
        if found != expected:
            raise InputError(
                f"`init_from`: {where}",
                expected=f"the {what} {', '.join(expected)} of {domain.name}, as in "
                "the plan",
                received=", ".join(found),
            )


def _warn_of_seen_cases(seen: SeenCases, domain: Domain, checkpoint: str) -> None:
    """Warns of cases for scoring that the model was trained on."""
    if not seen.complete:
        logging.warning(
            "%s does not name all cases of %s that it was trained on, so whether "
            "validation or test cases of the plan are among them is unknown",
            checkpoint,
            domain.name,
        )
    if held_out := sorted({*domain.validation, *domain.test} & set(seen.cases)):
        logging.warning(
            "%s was trained on %s of %s that the plan holds out for validation or "
            "testing; their scores will not be those of unseen cases: %s",
            checkpoint,
            quantity(len(held_out), "case"),
            domain.name,
            first_few(held_out),
        )
