"""Dice scores during a run, per domain and class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from u2net_tf.evaluation.metrics import annotated_only, dice, region_masks
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.reading import CaseShards, translate_tf_errors
from u2net_tf.shards.records import Record, to_record


class InterruptibleBackend(KerasBackend):
    """A backend that can be stopped between two batches of windows.

    Args:
      network: see `KerasBackend`.
      spec: see `KerasBackend`.
      check: called before each batch; an exception that it raises ends the validation.
    """

    def __init__(
        self, network: DomainModel, spec: ModelSpec, check: Callable[[], None]
    ):
        super().__init__(network, spec)
        self._check = check

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Returns the class probabilities of windows; see `Backend`."""
        self._check()
        return super().predict_windows(windows, domain, few=few)


def validate(
    predictor: Predictor,
    shards: Mapping[int, CaseShards],
    *,
    num_cases: int,
) -> dict[str, dict[str, float]]:
    """Scores the first cases of each domain's monitored split.

    Scores are computed on the preprocessed grid, without post-processing.

    Args:
      predictor: predictor of the network.
      shards: index of a domain in the predictor's plan -> shards of its split.
      num_cases: number of cases per domain.

    Returns:
      Domain -> class or region -> mean Dice over the cases where it is defined; NaN if
      none.

    Raises:
      InputError: if a shard cannot be read or does not match its manifest.
    """
    scores: dict[str, dict[str, float]] = {}
    for index, domain_shards in shards.items():
        domain = predictor.spec.plan.domains[index]
        rows = []
        for record in _monitored_records(domain_shards, num_cases):
            classes = predictor.classes(record.image, index)
            masks = annotated_only(record.labels, classes, domain.ignore_index)
            rows.append(_score(*masks, domain))
        scores[domain.name] = {
            name: _mean([row[k] for row in rows])
            for k, name in enumerate(domain.scored_names)
        }
    return scores


def _score(
    reference: np.ndarray, prediction: np.ndarray, domain: Domain
) -> list[float]:
    """Returns the Dice of each of the domain's `scored_names`."""
    scores = [*dice(reference, prediction, num_classes=domain.num_classes)]
    for classes in domain.region_classes.values():
        inside = region_masks((reference, prediction), classes)
        scores += [*dice(*inside, num_classes=2)]
    return scores


def _mean(scores: Sequence[float]) -> float:
    """Returns the mean of the scores that are not NaN; NaN if there are none."""
    values = [score for score in scores if not math.isnan(score)]
    return float(np.mean(values)) if values else math.nan


def _monitored_records(shards: CaseShards, num_cases: int) -> Iterator[Record]:
    with translate_tf_errors([shards]):
        for row, serialized in shards.records().take(num_cases):
            record = to_record(shards.parse(row, serialized))
            if not np.isfinite(record.image).all():
                shards.check([record.case])
            yield record
