"""Collects the content of a model card: texts, training runs and scores."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Sequence

from u2net_tf.config.packing import PackConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation.tables import SUMMARY, Summary
from u2net_tf.exporting.saved_model import Source
from u2net_tf.models.describe_model import describe_models
from u2net_tf.models.description import ModelDescription
from u2net_tf.models.model_card import (
    CardTexts,
    ClassDice,
    DomainCard,
    Evaluation,
    Training,
    load_texts,
)
from u2net_tf.plan.domains import Domain


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
    checkpoints = {
        name: pathlib.Path(source.checkpoint).name
        for name, source in zip(names, sources, strict=True)
    }
    for folder in config.evaluation:
        path = pathlib.Path(folder, "summary.json")
        summary = SUMMARY.load(path)
        scored = {row.domain for row in summary.classes}
        domains = [
            source.spec.plan.domains[source.index]
            for source in sources
            if source.spec.plan.names[source.index] in scored
        ]
        if not domains:
            raise InputError(
                path,
                expected=f"scores of {', '.join(names)}",
                received=f"scores of {', '.join(sorted(scored)) or 'no domain'}",
            )
        for domain in domains:
            if domain.name in found:
                raise InputError(
                    "`evaluation`",
                    expected=f"a single one with scores of {domain.name}",
                    received=", ".join(config.evaluation),
                )
            found[domain.name] = _evaluation(
                summary, domain, checkpoints[domain.name], path
            )
    models = {
        checkpoint: describe_models(checkpoint)[0]
        for checkpoint in {source.checkpoint for source in sources}
    }
    return tuple(
        DomainCard(
            checkpoint=checkpoints[name],
            written_by=models[source.checkpoint].written_by or None,
            pruned_to=config.prune_to,
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


def _evaluation(
    summary: Summary, domain: Domain, checkpoint: str, path: pathlib.Path
) -> Evaluation:
    """Returns the scores of one domain, without names of cases and folders."""
    scored = re.findall(r"([^/\\]+?)(?:, |$)", summary.checkpoint)
    if checkpoint not in scored:
        raise InputError(
            f"{path}: checkpoint",
            expected=f"{checkpoint}, the packed checkpoint",
            received=summary.checkpoint,
        )
    if summary.postprocessing:
        settings = (f"{name}={value}" for name, value in summary.postprocessing.items())
        raise InputError(
            f"{path}: postprocessing",
            expected="that of the model's plan, which predictions use by default",
            received=", ".join(settings),
        )
    rows = [row for row in summary.classes if row.domain == domain.name]
    expected = [label.name for label in domain.labels[1:]]
    if [row.label for row in rows] != expected:
        raise InputError(
            f"{path}: classes",
            expected=f"{', '.join(expected)} of {domain.name}",
            received=[row.label for row in rows],
        )
    for row in rows:
        if not (math.isnan(row.mean) or 0 <= row.mean <= 1):
            raise InputError(
                f"{path}: mean of {row.label}",
                expected="a Dice from 0 to 1",
                received=row.mean,
            )
    return Evaluation(
        split=summary.split,
        checkpoint=checkpoint,
        num_skipped=sum(case.startswith(f"{domain.name}/") for case in summary.skipped),
        classes=tuple(
            ClassDice(
                label=row.label,
                mean=row.mean,
                standard_deviation=row.standard_deviation,
                num_cases=row.num_cases,
                num_absent=row.num_absent,
            )
            for row in rows
        ),
    )
