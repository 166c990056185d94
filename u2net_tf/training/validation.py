"""Dice during a run, per domain and class."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from u2net_tf.evaluation.metrics import dice
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.plan.domains import Domain
from u2net_tf.shards import reading
from u2net_tf.shards.manifest import Manifest
from u2net_tf.shards.records import Record, parse, to_record


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

    def predict_windows(self, windows: np.ndarray, domain: int) -> np.ndarray:
        """Class probabilities of windows; see `Backend`."""
        self._check()
        return super().predict_windows(windows, domain)


def validate(
    predictor: Predictor,
    manifests: Mapping[int, Manifest],
    *,
    data_dir: str | os.PathLike,
    num_cases: int,
) -> dict[str, dict[str, float]]:
    """Scores the first cases of each domain's monitored split.

    On the preprocessed grid and without post-processing.

    Args:
      predictor: predictor of the network.
      manifests: index of a domain in the predictor's plan -> manifest of its shards.
      data_dir: folder that `data_prep.convert` wrote.
      num_cases: number of cases per domain.

    Returns:
      Domain -> class -> mean Dice over the cases that have one; NaN where none has.

    Raises:
      InputError: if a shard cannot be read.
    """
    scores: dict[str, dict[str, float]] = {}
    for index, manifest in manifests.items():
        domain = predictor.spec.plan.domains[index]
        rows = []
        for record in _monitored_records(domain, manifest, data_dir, num_cases):
            classes = predictor.classes(record.image, index)
            rows.append(dice(record.labels, classes, num_classes=domain.num_classes))
        scores[domain.name] = {
            label.name: _mean([row[k] for row in rows])
            for k, label in enumerate(domain.labels[1:])
        }
    return scores


def _mean(scores: Sequence[float]) -> float:
    """Mean of the scores that are not NaN; NaN if there is none."""
    values = [score for score in scores if not math.isnan(score)]
    return float(np.mean(values)) if values else math.nan


def _monitored_records(
    domain: Domain, manifest: Manifest, data_dir: str | os.PathLike, num_cases: int
) -> Iterator[Record]:
    cases = domain.cases(domain.monitored_split)
    records = reading.serialized_records(data_dir, manifest, cases)
    with reading.translate_tf_errors(data_dir, [manifest]):
        for serialized in records.take(num_cases):
            record = to_record(parse(serialized))
            reading.check_cases(data_dir, domain.name, {record.case}, set(cases))
            yield record
