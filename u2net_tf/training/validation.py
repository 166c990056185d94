"""Dice while a run lasts, per domain and class."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping

import numpy as np

from u2net_tf.evaluation.metrics import dice
from u2net_tf.inference.predictor import Predictor
from u2net_tf.plan.domains import Domain
from u2net_tf.shards import reading
from u2net_tf.shards.manifest import Manifest
from u2net_tf.shards.records import Record, parse, to_record
from u2net_tf.training.monitor import dice_column


def validate(
    predictor: Predictor,
    manifests: Mapping[int, Manifest],
    *,
    data_dir: str | os.PathLike,
    num_cases: int,
) -> dict[str, float]:
    """Scores the first cases of each domain's watched split.

    On the preprocessed grid and without clean-up.

    Args:
      predictor: of the network.
      manifests: of the shards of each domain, by its index in the predictor's plan.
      data_dir: folder that `data_prep.convert` wrote.
      num_cases: per domain.

    Returns:
      Columns of `training.csv`: the mean Dice of each class over the cases that have
      one, NaN where none has.

    Raises:
      InputError: if a shard cannot be read.
    """
    scores = {}
    for index, manifest in manifests.items():
        domain = predictor.spec.plan.domains[index]
        rows = []
        for record in _watched_records(domain, manifest, data_dir, num_cases):
            classes = predictor.classes(record.image, index)
            rows.append(dice(record.labels, classes, num_classes=domain.num_classes))
        for k, label in enumerate(domain.labels[1:]):
            values = [row[k] for row in rows if not math.isnan(row[k])]
            mean = float(np.mean(values)) if values else math.nan
            scores[dice_column(domain.name, label.name)] = mean
    return scores


def _watched_records(
    domain: Domain, manifest: Manifest, data_dir: str | os.PathLike, num_cases: int
) -> Iterator[Record]:
    cases = domain.cases(domain.watched_split)
    records = reading.serialized_records(data_dir, manifest, cases)
    with reading.translate_tf_errors(data_dir, [manifest]):
        for serialized in records.take(num_cases):
            record = to_record(parse(serialized))
            reading.check_cases(data_dir, domain.name, {record.case}, set(cases))
            yield record
