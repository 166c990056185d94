"""Collects the content of a model card: texts, training runs and scores."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from u2net_tf.config.packing import PackConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation.tables import SUMMARY, ClassScore, Summary
from u2net_tf.exporting.saved_model import Source
from u2net_tf.models.checkpoint_paths import checkpoint_hash, checkpoint_name
from u2net_tf.models.describe_model import describe_models
from u2net_tf.models.description import ModelDescription
from u2net_tf.models.model_card import (
    CardTexts,
    ClassDice,
    DomainCard,
    Evaluation,
    RegionDice,
    Training,
    load_texts,
)
from u2net_tf.wording import first_few


def read_texts(config: PackConfig, names: Sequence[str]) -> CardTexts:
    """Reads the texts of the card from the settings.

    Args:
      config: the settings.
      names: names of the domains.

    Raises:
      InputError: if the file of texts cannot be used, or a text is given twice.
    """
    texts = (
        CardTexts()
        if config.card_fields is None
        else load_texts(config.card_fields, names)
    )
    for name in ("licence", "intended_use"):
        value = getattr(config, name)
        if value is None:
            continue
        if getattr(texts, name) is not None:
            raise InputError(
                f"`{name}`",
                expected=f"no value, as {config.card_fields} has one",
                received=value,
            )
        texts = dataclasses.replace(texts, **{name: value})
    return texts


def describe_domains(
    sources: Sequence[Source], names: Sequence[str], config: PackConfig
) -> tuple[DomainCard, ...]:
    """Describes each domain by its checkpoint and its scores, if given.

    Args:
      sources: the domains.
      names: names of the domains, in the order of the card.
      config: the settings.

    Raises:
      InputError: if a file of scores cannot be used, or has none of the domains.
    """
    found: dict[str, Evaluation] = {}
    for folder in config.evaluation:
        path = pathlib.Path(folder, "summary.json")
        summary = SUMMARY.load(path)
        scored = {row.domain for row in summary.classes}
        of_scores = [
            (name, source)
            for name, source in zip(names, sources, strict=True)
            if name in scored
        ]
        if not of_scores:
            raise InputError(
                path,
                expected=f"scores of {', '.join(names)}",
                received=f"scores of {', '.join(sorted(scored)) or 'no domain'}",
            )
        for name, source in of_scores:
            if name in found:
                raise InputError(
                    "`evaluation`",
                    expected=f"a single one with scores of {name}",
                    received=", ".join(config.evaluation),
                )
            found[name] = _evaluation(summary, source, path)
    models = {
        checkpoint: describe_models(checkpoint)[0]
        for checkpoint in {source.checkpoint for source in sources}
    }
    return tuple(
        DomainCard(
            checkpoint=_checkpoint_name(source),
            written_by=models[source.checkpoint].written_by or None,
            pruned_to=None if source.spec.deep_supervision else source.spec.depth,
            cases=source.spec.count_cases(source.index),
            training=_training(models[source.checkpoint], name),
            evaluation=found.get(name),
        )
        for name, source in zip(names, sources, strict=True)
    )


def _training(model: ModelDescription, name: str) -> Training | None:
    run = model.training
    if run is None:
        return None
    (domain,) = (each for each in model.domains if each.name == name)
    return Training(
        steps=run.steps,
        epochs=run.epochs,
        finished=run.finished,
        trained=bool(domain.is_trained),
        shared_variables=run.shared_variables,
        precision=run.precision,
        fold=run.fold,
    )


def _checkpoint_name(source: Source) -> str:
    return pathlib.Path(source.checkpoint).name


def _evaluation(summary: Summary, source: Source, path: pathlib.Path) -> Evaluation:
    """Returns the scores of one domain, without names of cases and folders."""
    domain = source.spec.plan.domains[source.index]
    checkpoint = _checkpoint_name(source)
    _require_checkpoint(summary, domain.name, source, path)
    _require_defaults(summary, path)
    _require_unseen_cases(summary, domain.name, path)
    _require_depth(summary, domain.name, source.spec.depth, path)
    rows = [row for row in summary.classes if row.domain == domain.name]
    expected = [label.name for label in domain.labels[1:]]
    if [row.label for row in rows] != expected:
        raise InputError(
            f"{path}: classes",
            expected=f"{', '.join(expected)} of {domain.name}",
            received=[row.label for row in rows],
        )
    regions = [row for row in summary.regions if row.domain == domain.name]
    classes_of = summary.region_classes or {}
    unlisted = summary.domains_with_unlisted_cases
    if summary.split is None:
        raise InputError(
            f"{path}: split", expected="a split of the plan", received="none"
        )
    return Evaluation(
        split=summary.split,
        checkpoint=checkpoint,
        num_skipped=sum(case.startswith(f"{domain.name}/") for case in summary.skipped),
        classes=tuple(ClassDice(**_dice(row, path)) for row in rows),
        regions=tuple(
            RegionDice(
                **_dice(row, path), classes=classes_of.get(f"{row.domain}/{row.label}")
            )
            for row in regions
        ),
        lists_training_cases=None if unlisted is None else domain.name not in unlisted,
    )


def _dice(row: ClassScore, path: pathlib.Path) -> dict[str, Any]:
    """Returns the fields of `ClassDice`."""
    if not (math.isnan(row.mean) or 0 <= row.mean <= 1):
        raise InputError(
            f"{path}: mean of {row.label}",
            expected="a Dice from 0 to 1",
            received=row.mean,
        )
    fields = dataclasses.fields(ClassDice)
    return {field.name: getattr(row, field.name) for field in fields}


def _require_checkpoint(
    summary: Summary, name: str, source: Source, path: pathlib.Path
) -> None:
    """Checks that scores are those of the packed weights of a domain."""
    checkpoint = _checkpoint_name(source)
    if summary.checkpoint_hashes is None:
        # An older version recorded paths only. Every composed model is of step 0.
        names = re.findall(r"([^/\\]+?)(?:, |$)", summary.checkpoint)
        is_packed = checkpoint in names and checkpoint != checkpoint_name(0)
        difference = "without a hash"
    else:
        scored = summary.checkpoint_hashes.get(name)
        is_packed = scored == checkpoint_hash(source.checkpoint)
        difference = "with another hash" if scored else "without a hash"
    if not is_packed:
        raise InputError(
            f"{path}: checkpoint",
            expected=f"{checkpoint}, the packed checkpoint",
            received=f"{summary.checkpoint}, {difference}",
            hint="Evaluate the packed model again",
        )


def _require_unseen_cases(summary: Summary, name: str, path: pathlib.Path) -> None:
    """Checks that no scores are those of training cases in another split."""
    trained = [
        case for case in summary.training_cases or () if case.startswith(f"{name}/")
    ]
    if trained:
        raise InputError(
            f"{path}: training_cases",
            expected=f"no training cases in the split {summary.split}",
            received=first_few(trained),
            hint="Evaluate with the plan and the fold of the training, and a model "
            "trained with `init_from` without training cases of the initial model",
        )


def _require_depth(
    summary: Summary, name: str, depth: int | None, path: pathlib.Path
) -> None:
    """Checks that scores are those of a UNet# of this depth; None for a U²-Net."""
    scored = (summary.depths or {}).get(name)
    if scored != depth:
        unknown = "no depth"
        if summary.depths is None:
            unknown = "not recorded by an older version"
        raise InputError(
            f"{path}: depth of {name}",
            expected=f"{depth or 'none'}, that of the packed network",
            received=scored or unknown,
            hint="Evaluate again, with the same `prune_to`",
        )


def _require_defaults(summary: Summary, path: pathlib.Path) -> None:
    """Checks that scores are those of predictions with the default settings."""
    for name, settings, expected in (
        ("postprocessing", summary.postprocessing, "that of the model's plan"),
        ("prediction", summary.prediction, "the default settings"),
    ):
        if settings:
            received = (f"{name}={value}" for name, value in settings.items())
            raise InputError(
                f"{path}: {name}",
                expected=f"{expected}, which predictions use by default",
                received=", ".join(received),
            )
