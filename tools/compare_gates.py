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
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from absl import logging
from pydantic import Field

from u2net_tf import command, machine, schema
from u2net_tf.config.base import Config
from u2net_tf.config.inference import WindowConfig
from u2net_tf.config.network import PRUNE_TO
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Split
from u2net_tf.plan.limits import Depth
from u2net_tf.wording import first_few

if TYPE_CHECKING:
    from u2net_tf.inference.predictor import Predictor
    from u2net_tf.models.spec import ModelSpec
    from u2net_tf.plan.domains import Domain
    from u2net_tf.shards.reading import CaseShards
    from u2net_tf.shards.records import Record

_HEADERS = (
    ("domain", "class", "threshold")
    + ("patches without", "FP ml", "patches with", "missed")
    + ("scans without", "FP ml", "scans with", "Dice %")
)


class CompareGatesConfig(Config):
    """Settings of `tools.compare_gates`."""

    model_dir: str = Field(description="Folder written by train.")
    data_dir: str = Field(description="Shards of the model's domains.")
    split: Split = Field("test", description="Split to measure.")
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.1, 0.5, 0.9),
        description="Gate thresholds to compare, 0 to 1; if empty, only without gates.",
    )
    prune_to: Depth | None = PRUNE_TO


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
    from u2net_tf.evaluation.metrics import dice, false_positive_ml

    domain = predictor.spec.plan.domains[index]
    measures = [ClassMeasures() for _ in domain.labels[1:]]
    volumes_of = functools.partial(
        false_positive_ml,
        num_classes=domain.num_classes,
        voxel_ml=math.prod(domain.spacing_mm) / 1000,
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
    from u2net_tf.inference.windows import window_starts

    axes = []
    for size, patch in zip(shape, domain.patch_size, strict=True):
        edge = min(size, patch)
        axes.append([slice(i, i + edge) for i in window_starts(size, edge, edge)])
    z, y, x = axes
    return itertools.product(z, y, x)


def _mean(values: Sequence[float], text: str) -> str:
    return text.format(statistics.fmean(values)) if values else "–"


def main(config: CompareGatesConfig) -> None:
    """Prints the table."""
    machine.import_tensorflow()
    import tabulate

    from u2net_tf.inference.backends.keras import load_predictor, require_settings
    from u2net_tf.models.loading import load_spec

    spec = load_spec(config.model_dir)
    if config.thresholds and spec.gates == "none":
        raise InputError(
            "`thresholds`",
            expected=f"none, as the model in {config.model_dir} has no gates",
            received=",".join(map(str, config.thresholds)),
            hint="Set `thresholds` to no value",
        )
    schema.require_distinct("`thresholds`", config.thresholds, "each number once")
    settings = [
        WindowConfig(prune_to=config.prune_to, gate_threshold=threshold)
        for threshold in (None, *config.thresholds)
    ]
    for each in settings:
        require_settings(spec, each, config.model_dir)
    domains = _load_domains(config, spec)
    rows = []
    for each in settings:
        predictor = load_predictor(config.model_dir, each)
        for index, (domain, shards) in enumerate(domains):
            found = measure(predictor, index, _records(shards))
            threshold = each.gate_threshold
            name = "no gates" if threshold is None else str(threshold)
            rows += [
                ((index, number), (domain.name, label.name, name, *of_class.cells()))
                for number, (label, of_class) in enumerate(
                    zip(domain.labels[1:], found, strict=True)
                )
            ]
    rows.sort(key=lambda row: row[0])
    print(
        tabulate.tabulate(
            [cells for _, cells in rows],
            headers=_HEADERS,
            disable_numparse=True,
            colalign=("left", "left", *["right"] * (len(_HEADERS) - 2)),
        )
    )


def _load_domains(
    config: CompareGatesConfig, spec: ModelSpec
) -> list[tuple[Domain, CaseShards]]:
    """Returns the model's domains and the shards of the split.

    Raises:
      InputError: if the shards are not those of the model's plan, or a domain has no
        cases in the split.
    """
    from u2net_tf.evaluation.listed_cases import domains_of_model, list_cases
    from u2net_tf.models.run_state import RunState
    from u2net_tf.plan.plan_hash import plan_hashes
    from u2net_tf.shards.manifest import load_converted, manifest_path
    from u2net_tf.shards.reading import CaseShards

    folder = pathlib.Path(config.model_dir)
    _, manifests = load_converted(config.data_dir, spec.plan.names)
    plan = str(pathlib.Path(config.data_dir, "plan.json"))
    domains = domains_of_model(folder, spec, RunState())
    found = []
    for index, manifest in enumerate(manifests):
        name = spec.plan.names[index]
        (domain,) = list_cases(
            [domains[name]],
            plan=None if spec.has_case_names(index) else plan,
            fold=None,
        )
        path = manifest_path(config.data_dir, name)
        if manifest.plan_hash not in plan_hashes(domain):
            raise InputError(
                path,
                expected=f"shards of the plan of {folder}",
                received="shards of a different plan",
            )
        cases = set(domain.cases(config.split))
        shards = CaseShards(config.data_dir, domain, manifest, cases)
        skipped = sorted(cases & set(manifest.skipped))
        found_cases = {entry.case for entry in shards.entries}
        if missing := sorted(cases - found_cases - set(skipped)):
            raise InputError(
                path,
                expected=f"{first_few(missing)}, as in {folder}",
                received="shards without them",
            )
        if skipped:
            logging.warning("%s: convert skipped %s", path, first_few(skipped))
        if not shards.entries:
            raise InputError(
                "`split`",
                expected=f"cases of {name} in {config.split!r}",
                received="none in the plan that convert has not skipped",
            )
        found.append((domain, shards))
    return found


def _records(shards: CaseShards) -> Iterator[Record]:
    from u2net_tf.shards.reading import translate_tf_errors
    from u2net_tf.shards.records import to_record

    with translate_tf_errors([shards]):
        for row, serialized in shards.records().take(len(shards.entries)):
            yield to_record(shards.parse(row, serialized))


def run() -> None:
    """Runs the command."""
    command.start(main, CompareGatesConfig)


if __name__ == "__main__":
    run()
