"""An ensemble: averages the probabilities of several models of the same domain."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from u2net_tf.config.inference import WindowConfig
from u2net_tf.errors import InputError
from u2net_tf.inference.backend import Backend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain
from u2net_tf.progress import Progress, silent
from u2net_tf.wording import first_few


class EnsembleBackend:
    """A `Backend` that averages the class probabilities of several ones.

    Domains have the indices that they have in the first model, which also provides the
    postprocessing.

    Args:
      members: the backends, at least one; see `require_same_domain`.

    Attributes:
      members: the same.
    """

    def __init__(self, members: Sequence[Backend]):
        self.members = tuple(members)
        self.spec: ModelSpec = self.members[0].spec
        self.fingerprint = " + ".join(each.fingerprint for each in self.members)
        self.checkpoint = ", ".join(each.checkpoint for each in self.members)
        self.is_exported = any(each.is_exported for each in self.members)

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Returns the class probabilities of windows; see `Backend`."""
        first, *others = self.members
        total = np.array(first.predict_windows(windows, domain, few=few))
        name = self.spec.plan.names[domain]
        for each in others:
            index = each.spec.plan.index(name)
            total += each.predict_windows(windows, index, few=few)
        total /= len(self.members)
        return total


def combine(
    predictors: Sequence[Predictor],
    settings: WindowConfig,
    *,
    progress: Progress = silent,
) -> Predictor:
    """Returns the predictor of an ensemble, or the only one.

    Args:
      predictors: those of the models, at least one, made with the same settings. Only
        domains that pass `require_same_domain` can be predicted.
      settings: the windows.
      progress: shows the progress over the windows of a volume.

    Raises:
      InputError: if a model is a copy of another, and would have more weight than the
        others.
    """
    if len(predictors) == 1:
        return predictors[0]
    firsts: dict[str, str] = {}
    for each in predictors:
        if each.backend.fingerprint in firsts:
            raise InputError(
                each.checkpoint,
                expected=f"another model than {firsts[each.backend.fingerprint]}",
                received="a copy of it",
            )
        firsts[each.backend.fingerprint] = each.checkpoint
    backend = EnsembleBackend([each.backend for each in predictors])
    # The members mirror the windows if requested.
    once = settings.model_copy(update={"test_time_mirroring": False})
    return Predictor.of_settings(backend, once, progress=progress)


def require_distinct(where: str, paths: Sequence[str | os.PathLike]) -> None:
    """Checks that there is a model, and that none has more weight than the others.

    Raises:
      InputError: if there is none, a path is empty or two paths lead to the same model;
        names `where`.
    """
    texts = [os.fspath(path) for path in paths]
    distinct = {os.path.realpath(text) for text in texts}
    if not texts or not all(texts) or len(distinct) < len(texts):
        received = ", ".join(text or '""' for text in texts) or "none"
        raise InputError(where, expected="paths of distinct models", received=received)


def common_domains(where: str, domains: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Returns the domains that all models have; logs the others.

    Args:
      where: setting with the models, for the error.
      domains: names of the domains of each model.

    Raises:
      InputError: if there are none.
    """
    found = list(dict.fromkeys(itertools.chain.from_iterable(domains)))
    common = [name for name in found if all(name in names for names in domains)]
    if not common:
        raise InputError(
            where,
            expected="models with a common domain",
            received=f"domains {first_few(found)}",
        )
    others = [name for name in found if name not in common]
    if others:
        logging.info("%s: not a domain of all models, left out", first_few(others))
    return tuple(common)


def require_same_domain(
    paths: Sequence[str | os.PathLike], domains: Sequence[Domain]
) -> None:
    """Checks that models can be averaged: that windows and classes mean the same.

    Args:
      paths: paths of the models.
      domains: the domain in the plan of each of them.

    Raises:
      InputError: if modalities, classes, spacing, preprocessing or patch size differ.
    """
    expected = _properties(domains[0])
    for path, domain in zip(paths, domains, strict=True):
        for name, value in _properties(domain).items():
            if value != expected[name]:
                raise InputError(
                    path,
                    expected=f"the {name} of {domain.name} in {paths[0]}, "
                    f"{expected[name]}, to average their probabilities",
                    received=value,
                )


def require_same_ignore_label(
    paths: Sequence[str | os.PathLike], domains: Sequence[Domain]
) -> None:
    """Checks that models agree on which voxels of references are not annotated.

    Predictions do not depend on it.

    Args:
      paths: paths of the models.
      domains: the domain in the plan of each of them.

    Raises:
      InputError: if not.
    """
    expected, *others = [
        "none" if domain.ignore_label is None else domain.ignore_label
        for domain in domains
    ]
    for path, received in zip(paths[1:], others, strict=True):
        if received != expected:
            raise InputError(
                path,
                expected=f"the ignore label of {domains[0].name} in {paths[0]}, "
                f"{expected}, to score an ensemble of both",
                received=received,
            )


def _properties(domain: Domain) -> dict[str, Any]:
    """Returns what the meaning of windows and of their classes depends on."""
    preprocessing = domain.preprocessing
    return {
        "modalities": domain.modalities,
        "classes": tuple(label.name for label in domain.labels),
        "label values": tuple(label.values for label in domain.labels),
        "spacing": domain.spacing_mm,
        **{
            f"preprocessing.{field.name}": getattr(preprocessing, field.name)
            for field in dataclasses.fields(preprocessing)
        },
        "patch size": domain.patch_size,
    }
