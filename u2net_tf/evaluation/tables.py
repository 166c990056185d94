"""Scores of many cases: the table and `summary.json`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence

import numpy as np
from tabulate import SEPARATING_LINE, tabulate

from u2net_tf import migrations, schema
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.domains import Domain, Split
from u2net_tf.schema import Count, MaybeNan, Text


@dataclasses.dataclass(frozen=True)
class CaseScore:
    """Scores of one case.

    Attributes:
      domain: name of the domain.
      case: name of the case.
      dice: foreground class or region -> Dice from 0 to 1; NaN for those that neither
        the reference nor the prediction contains.
      false_positive_ml: foreground class or region -> its predicted volume, for those
        that the reference does not contain.
      hd95_mm: foreground class or region -> see `SurfaceScore`; empty if surfaces were
        not compared.
      surface_dice: the same.
    """

    domain: str
    case: str
    dice: dict[str, float]
    false_positive_ml: dict[str, float]
    hd95_mm: dict[str, float] = dataclasses.field(default_factory=dict)
    surface_dice: dict[str, float] = dataclasses.field(default_factory=dict)


@schema.model
class ClassScore:
    """Scores of one class or region over the cases of its domain.

    Attributes:
      domain: name of the domain.
      label: name of the class or region.
      mean: mean Dice over the cases in which it is defined; NaN if there are none.
      standard_deviation: standard deviation over the same cases.
      num_cases: number of cases in which the Dice is defined.
      num_absent: number of cases in which neither mask contains the class; they are
        excluded from the mean.
      num_without: number of cases whose reference does not contain the class.
      false_positive_ml: mean predicted volume in these; NaN if there are none.
      hd95_mm: mean over the cases in which it is defined; NaN if there are none or if
        surfaces were not compared.
      surface_dice: mean over the cases in which it is defined; NaN if there are none or
        if surfaces were not compared.
    """

    domain: Text
    label: Text
    mean: MaybeNan
    standard_deviation: MaybeNan
    num_cases: Count
    num_absent: Count
    num_without: Count = 0
    false_positive_ml: MaybeNan = math.nan
    hd95_mm: MaybeNan = math.nan
    surface_dice: MaybeNan = math.nan


@schema.model
class Summary:
    """The content of `summary.json`.

    Attributes:
      split: split of the cases that were scored; None for cases that are not of a plan.
      checkpoint: path of the model's checkpoint, or several paths; for label maps that
        existed already, where they were.
      mean_dice: mean over all classes, without regions; NaN if none has a Dice.
      classes: scores of the classes of all domains.
      skipped: "domain/case" -> reason for cases that could not be scored.
      postprocessing: setting -> value, for the postprocessing settings with which the
        evaluation replaced those of the model's plan.
      prediction: setting -> value, for other settings that affect predictions and
        differ from their defaults; None if an older version did not record them.
      depths: domain -> depth L of the head X^{0,L} of its UNet# that predicted, the
        first one if several models are averaged; without domains of other networks, and
        None if an older version did not record it.
      checkpoint_hashes: domain -> `checkpoint_paths.checkpoint_hash` of the checkpoint
        that predicted, or those of several models that are averaged, joined by " + ";
        none for label maps that existed already, and None if an older version did not
        record it.
      training_cases: "domain/case" of cases of another split that the model, or a model
        that it was initialized with, was trained on; None if an older version did not
        record them.
      surface_tolerance_mm: tolerance of the surface Dice; None if surfaces were not
        compared.
      regions: scores of the regions of all domains.
      region_classes: "domain/region" -> names of the region's classes; None if an older
        version did not record them.
      domains_with_unlisted_cases: domains whose models do not list all cases that they
        were trained on, so that `training_cases` of another split than train may lack
        some; None if an older version did not record them.
    """

    split: Split | None
    checkpoint: str
    mean_dice: MaybeNan
    classes: tuple[ClassScore, ...]
    skipped: dict[str, str]
    postprocessing: dict[str, Count] = dataclasses.field(default_factory=dict)
    prediction: dict[str, float | bool | str] | None = None
    depths: dict[str, Count] | None = None
    checkpoint_hashes: dict[str, Text] | None = None
    training_cases: tuple[str, ...] | None = None
    surface_tolerance_mm: float | None = None
    regions: tuple[ClassScore, ...] = ()
    region_classes: dict[Text, tuple[Text, ...]] | None = None
    domains_with_unlisted_cases: tuple[Text, ...] | None = None


SUMMARY = FileFormat(
    name="a summary",
    made_by="python -m u2net_tf.evaluate",
    kind=Summary,
    oldest=0,
    upgrades=(
        migrations.unversioned,
        migrations.summary,
        migrations.summary_with_volumes,
        migrations.summary_with_postprocessing,
        migrations.summary_with_prediction,
        migrations.summary_with_hashes,
        migrations.summary_with_surfaces,
        migrations.summary_with_regions,
        migrations.summary_with_unlisted_cases,
    ),
)


def summarize(
    scores: Sequence[CaseScore], domains: Sequence[Domain]
) -> list[ClassScore]:
    """Returns the scores per class, in the order of the plan."""
    return [
        summarize_class(scores, domain.name, label.name)
        for domain in domains
        for label in domain.labels[1:]
    ]


def summarize_regions(
    scores: Sequence[CaseScore], domains: Sequence[Domain]
) -> list[ClassScore]:
    """Returns the scores per region, in the order of the plan."""
    return [
        summarize_class(scores, domain.name, region.name)
        for domain in domains
        for region in domain.regions
    ]


def summarize_class(scores: Sequence[CaseScore], domain: str, name: str) -> ClassScore:
    """Returns the scores of a class or region of a domain."""
    of_domain = [score for score in scores if score.domain == domain]
    values = np.array([score.dice[name] for score in of_domain], float)
    defined = values[~np.isnan(values)]
    volumes = [
        score.false_positive_ml[name]
        for score in of_domain
        if name in score.false_positive_ml
    ]
    return ClassScore(
        domain=domain,
        label=name,
        mean=mean(defined),
        standard_deviation=float(defined.std()) if defined.size else math.nan,
        num_cases=int(defined.size),
        num_absent=int(values.size - defined.size),
        num_without=len(volumes),
        false_positive_ml=mean(volumes),
        hd95_mm=mean(each.hd95_mm.get(name) for each in of_domain),
        surface_dice=mean(each.surface_dice.get(name) for each in of_domain),
    )


def mean_dice(rows: Sequence[ClassScore]) -> float:
    """Returns the unweighted mean over classes, as in Table 2 of the paper."""
    return mean(row.mean for row in rows)


def mean(values: Iterable[float | None]) -> float:
    """Returns the mean of the values that are defined; NaN if there are none."""
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def format_table(
    rows: Sequence[ClassScore],
    regions: Sequence[ClassScore] = (),
    *,
    surface_tolerance_mm: float | None = None,
) -> str:
    """Formats the Dice in %, a row per class, as in Table 2 of the paper.

    Columns of false positives are added if a reference lacks a class.

    Args:
      rows: scores of the classes.
      regions: scores of the regions, which follow the mean of the classes.
      surface_tolerance_mm: tolerance of the surface Dice; None for no columns of
        surfaces.
    """
    columns = ["domain", "class", "Dice %", "± sd", "cases", "absent"]
    with_surfaces = surface_tolerance_mm is not None
    if with_surfaces:
        columns += ["HD95 mm", f"surface Dice % at {surface_tolerance_mm:g} mm"]
    every = [*rows, *regions]
    if some_without := any(row.num_without for row in every):
        columns += ["without", "FP ml"]
    cells: list[tuple[str, ...] | str] = [
        (
            row.domain,
            row.label,
            _percent(row.mean),
            _percent(row.standard_deviation),
            str(row.num_cases),
            str(row.num_absent),
            *(_surfaces(row) if with_surfaces else ()),
            *((str(row.num_without), _ml(row)) if some_without else ()),
        )
        for row in every
    ]
    of_regions = cells[len(rows) :]
    mean = _percent(mean_dice(rows))
    empty = [""] * (len(columns) - 3)
    cells[len(rows) :] = [SEPARATING_LINE, ("mean of the classes", "", mean, *empty)]
    if of_regions:
        header = ("regions, not in the mean", *[""] * (len(columns) - 1))
        cells += [SEPARATING_LINE, header, *of_regions]
    text = tabulate(
        cells,
        headers=columns,
        tablefmt="simple",
        colalign=("left", "left", *["right"] * (len(columns) - 2)),
        disable_numparse=True,
    )
    absent = sum(row.num_absent for row in every)
    if absent:
        text += (
            f"\nabsent: neither mask contains the class ({absent} in total); the Dice "
            "is undefined and excluded from the mean"
        )
    if some_without:
        text += (
            "\nwithout: the reference lacks the class; FP ml: its mean predicted "
            "volume in these cases"
        )
    return text


def summary_to_json(summary: Summary) -> str:
    """Returns the summary as JSON; undefined numbers are null."""
    return json.dumps(SUMMARY.to_dict(summary), indent=1, ensure_ascii=False) + "\n"


def _surfaces(row: ClassScore) -> tuple[str, str]:
    distance = "–" if math.isnan(row.hd95_mm) else f"{row.hd95_mm:.2f}"
    return distance, _percent(row.surface_dice)


def _ml(row: ClassScore) -> str:
    return f"{row.false_positive_ml:.2f}" if row.num_without else "–"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"
