"""Measures the effect of UNet# gates where a class is present and where it is absent.

    python -m tools.compare_gates --model_dir=MODEL --data_dir=SHARDS

For each class, with and without gates: the false-positive volume in patches and scans
without the class, the number of patches with the class in which it is missed, and the
Dice of the scans with it. The scans are the preprocessed cases of a split, scored on
the preprocessed grid without removing small components; patches tile each scan. With
an empty --thresholds= the model may have been trained without gates.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tabulate
from absl import flags

from u2net_tf import command, machine
from u2net_tf.evaluation.metrics import dice, false_positive_ml
from u2net_tf.inference.windows import window_starts

if TYPE_CHECKING:
    from u2net_tf.inference.predictor import Predictor
    from u2net_tf.plan.domains import Domain
    from u2net_tf.shards.manifest import Manifest
    from u2net_tf.shards.records import Record

_HEADERS = (
    ("domain", "class", "threshold")
    + ("patches without", "FP ml", "patches with", "missed")
    + ("scans without", "FP ml", "scans with", "Dice %")
)


@dataclasses.dataclass
class ClassMeasures:
    """Measurements of one class at one gate threshold.

    Attributes:
      patch_fp_ml: false-positive volume in ml of each patch without the class.
      is_missed: for each patch with the class, whether none of it was predicted.
      scan_fp_ml: false-positive volume in ml of each scan without the class.
      dice: Dice of each scan with the class.
    """

    patch_fp_ml: list[float] = dataclasses.field(default_factory=list)
    is_missed: list[bool] = dataclasses.field(default_factory=list)
    scan_fp_ml: list[float] = dataclasses.field(default_factory=list)
    dice: list[float] = dataclasses.field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        """Returns the columns of the table after the threshold."""
        return (
            *(str(len(self.patch_fp_ml)), _mean(self.patch_fp_ml, "{:.3f}")),
            *(str(len(self.is_missed)), str(sum(self.is_missed))),
            *(str(len(self.scan_fp_ml)), _mean(self.scan_fp_ml, "{:.3f}")),
            *(str(len(self.dice)), _mean([100 * d for d in self.dice], "{:.2f}")),
        )


def measure(
    predictor: Predictor, index: int, records: Iterable[Record]
) -> list[ClassMeasures]:
    """Predicts preprocessed scans, both in full and patch by patch.

    Args:
      predictor: the model, with or without gates.
      index: index of the domain.
      records: the scans.

    Returns:
      The measurements of each foreground class.
    """
    domain = predictor.spec.plan.domains[index]
    measures = [ClassMeasures() for _ in domain.labels[1:]]
    volumes_of = functools.partial(
        false_positive_ml,
        num_classes=domain.num_classes,
        spacing_mm=domain.spacing_mm,
    )
    for record in records:
        labels = record.labels
        prediction = predictor.classes(record.image, index)
        scores = dice(labels, prediction, num_classes=domain.num_classes)
        volumes = volumes_of(labels, prediction)
        for found, score, volume in zip(measures, scores, volumes, strict=True):
            if math.isnan(volume):
                found.dice.append(float(score))
            else:
                found.scan_fp_ml.append(float(volume))
        for box in _patches(labels.shape, domain):
            patch = predictor.classes(record.image[box], index)
            volumes = volumes_of(labels[box], patch)
            for number, volume in enumerate(volumes, start=1):
                if math.isnan(volume):
                    is_empty = not (patch == number).any()
                    measures[number - 1].is_missed.append(is_empty)
                else:
                    measures[number - 1].patch_fp_ml.append(float(volume))
    return measures


def _patches(
    shape: Sequence[int], domain: Domain
) -> Iterator[tuple[slice, slice, slice]]:
    axes = []
    for size, patch in zip(shape, domain.patch_size, strict=True):
        edge = min(size, patch)
        axes.append([slice(i, i + edge) for i in window_starts(size, edge, edge)])
    z, y, x = axes
    return itertools.product(z, y, x)


def _mean(values: Sequence[float], text: str) -> str:
    return text.format(float(np.mean(values))) if values else "–"


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("model_dir", None, "Folder written by train.", required=True)
    flags.DEFINE_string(
        "data_dir", None, "Shards of the model's domains.", required=True
    )
    flags.DEFINE_enum(
        "split", "test", ("train", "validation", "test"), "Split to measure."
    )
    flags.DEFINE_list(
        "thresholds",
        ["0.1", "0.5", "0.9"],
        "Gate thresholds to compare, 0 to 1; if empty, only without gates.",
    )
    flags.DEFINE_integer(
        "prune_to", None, "Depth to prune to, as in evaluate.", lower_bound=1
    )


def _read_thresholds(texts: Sequence[str]) -> list[float]:
    try:
        thresholds = [float(text) for text in texts]
    except ValueError:
        thresholds = []
    if len(thresholds) < len(texts) or not all(0 <= t <= 1 for t in thresholds):
        raise command.InputError(
            "`thresholds`", expected="numbers from 0 to 1", received=",".join(texts)
        )
    return thresholds


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv  # flags only; `command.start` has checked
    values = flags.FLAGS
    thresholds = _read_thresholds(values.thresholds)
    machine.import_tensorflow()
    from u2net_tf.config.inference import WindowConfig
    from u2net_tf.inference.backends.keras import load_predictor
    from u2net_tf.models.loading import load_spec
    from u2net_tf.shards.manifest import load_converted

    plan, manifests = load_converted(
        values.data_dir, load_spec(values.model_dir).plan.names
    )
    rows = []
    for threshold in (None, *thresholds):
        settings = WindowConfig(prune_to=values.prune_to, gate_threshold=threshold)
        predictor = load_predictor(values.model_dir, settings)
        for index, (domain, manifest) in enumerate(
            zip(plan.domains, manifests, strict=True)
        ):
            records = _records(values.data_dir, domain, manifest, values.split)
            found = measure(predictor, index, records)
            for label, of_class in zip(domain.labels[1:], found, strict=True):
                name = "no gates" if threshold is None else str(threshold)
                rows.append((domain.name, label.name, name, *of_class.cells()))
    rows.sort(key=lambda row: row[:2])
    print(
        tabulate.tabulate(
            rows,
            headers=_HEADERS,
            disable_numparse=True,
            colalign=("left", "left", *["right"] * (len(_HEADERS) - 2)),
        )
    )


def _records(
    data_dir: str, domain: Domain, manifest: Manifest, split: str
) -> Iterator[Record]:
    from u2net_tf.shards.reading import CaseShards, translate_tf_errors
    from u2net_tf.shards.records import to_record

    shards = CaseShards(data_dir, domain, manifest, domain.cases(split))
    with translate_tf_errors([shards]):
        for row, serialized in shards.records().take(len(shards.entries)):
            yield to_record(shards.parse(row, serialized))


def run() -> None:
    """Runs the command."""
    define_flags()
    command.start(main)


if __name__ == "__main__":
    run()
