"""Evaluates a model, or a folder of independent ones, on the cases of a split."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from absl import logging

from u2net_tf import locks
from u2net_tf.config.evaluation import EvaluateConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation import listed_cases, results, scoring, tables
from u2net_tf.evaluation.results import Evaluation
from u2net_tf.inference import ensemble, outputs
from u2net_tf.inference.backends import keras
from u2net_tf.models.checkpoint_paths import checkpoint_hash
from u2net_tf.models.loading import load_spec_and_state, models_by_domain
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import msd
from u2net_tf.wording import first_few, quantity

# A domain to score, and the folders of its models.
_Choice: TypeAlias = tuple[tuple[pathlib.Path, ...], Domain]


def evaluate_model(
    config: EvaluateConfig, *, progress: Progress = silent
) -> Evaluation:
    """Scores every domain and writes dice.csv, summary.json and the label maps.

    Args:
      config: the settings.
      progress: shows the progress over the cases of a domain and windows of a case.

    Raises:
      InputError: if an input cannot be used, unless it is a case that is skipped. A
        missing file, or another run that writes to the folder, is detected before the
        first prediction.
    """
    ensemble.require_distinct("`model_dir`", config.model_dir)
    output_dir = pathlib.Path(
        config.output_dir or pathlib.Path(config.model_dir[0]) / config.split
    )
    with locks.locked(output_dir):
        return _evaluate(config, output_dir, progress)


def _evaluate(
    config: EvaluateConfig, output_dir: pathlib.Path, progress: Progress
) -> Evaluation:
    chosen, seen = _choose(config)
    domains = [domain for _, domain in chosen]
    cases, skipped = _find_cases(config, domains)
    outputs.require_writable([output_dir / "dice.csv", output_dir / "summary.json"])
    scored = _Scored()
    for folders, of_folders in itertools.groupby(chosen, key=lambda choice: choice[0]):
        _score(
            scored,
            config,
            folders,
            {domain: cases[domain.name] for _, domain in of_folders},
            output_dir,
            progress,
        )
        # The models of one group in memory at a time: they have reference cycles.
        gc.collect()
    skipped |= scored.skipped
    results.require_scores(scored.scores, skipped, "`split`")
    summary = _summarize(config, chosen, seen, scored, skipped)
    return results.write(output_dir, scored.scores, summary, skipped)


def _summarize(
    config: EvaluateConfig,
    chosen: Sequence[_Choice],
    seen: _Seen,
    scored: _Scored,
    skipped: Mapping[str, InputError],
) -> tables.Summary:
    domains = [domain for _, domain in chosen]
    return tables.Summary(
        split=config.split,
        checkpoint=", ".join(scored.checkpoints.values()),
        postprocessing=config.windows.postprocessing,
        prediction=config.changed_prediction,
        depths={name: d for name, d in scored.depths.items() if d is not None},
        checkpoint_hashes={
            domain.name: " + ".join(scored.hashes[folder] for folder in folders)
            for folders, domain in chosen
        },
        training_cases=seen.cases,
        surface_tolerance_mm=config.surface_tolerance_mm,
        domains_with_unlisted_cases=seen.incomplete,
        **results.summary_fields(scored.scores, domains, skipped),
    )


class _Seen(NamedTuple):
    """Cases to score that the models were trained on.

    Attributes:
      cases: see `tables.Summary.training_cases`.
      incomplete: see `tables.Summary.domains_with_unlisted_cases`.
    """

    cases: tuple[str, ...]
    incomplete: tuple[str, ...]


@dataclasses.dataclass
class _Scored:
    """What is known of the domains that are scored.

    Attributes:
      scores: the scores of all cases.
      skipped: "domain/case" -> reason of the cases that could not be used.
      checkpoints: folder of a model -> path of its checkpoint.
      hashes: folder of a model -> hash of its checkpoint.
      depths: domain -> depth of the first UNet# that predicted it; None if the first
        model is another network.
    """

    scores: list[tables.CaseScore] = dataclasses.field(default_factory=list)
    skipped: dict[str, InputError] = dataclasses.field(default_factory=dict)
    checkpoints: dict[pathlib.Path, str] = dataclasses.field(default_factory=dict)
    hashes: dict[pathlib.Path, str] = dataclasses.field(default_factory=dict)
    depths: dict[str, int | None] = dataclasses.field(default_factory=dict)


def _score(
    scored: _Scored,
    config: EvaluateConfig,
    folders: Sequence[pathlib.Path],
    cases: Mapping[Domain, Sequence[msd.Case]],
    output_dir: pathlib.Path,
    progress: Progress,
) -> None:
    """Scores the domains of a model, or of models whose probabilities are averaged."""
    members = [
        keras.load_predictor(folder, config.windows, progress=progress)
        for folder in folders
    ]
    for folder, member in zip(folders, members, strict=True):
        scored.checkpoints[folder] = member.checkpoint
        scored.hashes[folder] = checkpoint_hash(member.checkpoint)
    predictor = ensemble.combine(members, config.windows, progress=progress)
    for domain, of_domain in cases.items():
        scored.depths[domain.name] = predictor.spec.depth
        found = scoring.score_domain(
            predictor,
            predictor.spec.plan.index(domain.name),
            of_domain,
            output_dir,
            regions=domain.regions,
            reading=config.reading,
            surface_tolerance_mm=config.surface_tolerance_mm,
            overwrite=config.overwrite,
            progress=progress,
        )
        scored.scores += found.scores
        scored.skipped |= _of_domain(domain, found.skipped)


def _find_cases(
    config: EvaluateConfig, domains: Sequence[Domain]
) -> tuple[dict[str, list[msd.Case]], dict[str, InputError]]:
    """Returns the cases of each domain, and the reasons why others are skipped."""
    cases = {
        domain.name: scoring.find_cases(domain, config.split, config.raw_dir)
        for domain in domains
    }
    scoring.require_cases(cases.values(), config.split)
    skipped: dict[str, InputError] = {}
    for domain in domains:
        bad = scoring.check_headers(domain, cases[domain.name], config.reading)
        skipped |= _of_domain(domain, bad)
        cases[domain.name] = [c for c in cases[domain.name] if c.name not in bad]
    return cases, skipped


def _of_domain(domain: Domain, bad: dict[str, InputError]) -> dict[str, InputError]:
    return {f"{domain.name}/{name}": error for name, error in bad.items()}


def _choose(config: EvaluateConfig) -> tuple[list[_Choice], _Seen]:
    """Returns the domains to score, in order, with the folders of their models.

    Also returns which of their cases the models were trained on.
    """
    found = [models_by_domain(model_dir) for model_dir in config.model_dir]
    names = ensemble.common_domains("`model_dir`", [list(each) for each in found])
    of_folder = {
        folder: listed_cases.domains_of_model(
            folder, *load_spec_and_state(folder, config.windows.checkpoint)
        )
        for folders in found
        for folder in set(folders.values())
    }
    members = [
        {name: of_folder[folders[name]][name] for name in names} for folders in found
    ]
    joint = Plan(tuple(one.domain for one in members[0].values()))
    selected = joint.select(config.domains).names
    chosen = [[of_model[name] for name in selected] for of_model in members]
    specs = {one.folder: one.spec for ones in chosen for one in ones}
    for folder, spec in specs.items():
        keras.require_settings(spec, config.windows, folder)
    for ones in zip(*chosen, strict=True):
        folders, of_models = [one.folder for one in ones], [one.domain for one in ones]
        ensemble.require_same_domain(folders, of_models)
        ensemble.require_same_ignore_label(folders, of_models)
    domains = listed_cases.list_cases(chosen[0], config.plan, config.fold)
    folders_of = [
        tuple(one.folder for one in ones) for ones in zip(*chosen, strict=True)
    ]
    seen = _list_seen(config, chosen, domains)
    return list(zip(folders_of, domains, strict=True)), seen


def _list_seen(
    config: EvaluateConfig,
    chosen: Sequence[Sequence[listed_cases.ModelDomain]],
    domains: Sequence[Domain],
) -> _Seen:
    """Returns which cases to score the models were trained on; warns of them."""
    cases: dict[str, None] = {}
    incomplete: dict[str, None] = {}
    for ones in chosen:
        seen = listed_cases.list_training_cases(ones, domains, config.split)
        cases |= dict.fromkeys(seen)
        incomplete |= dict.fromkeys(listed_cases.list_incomplete(ones))
    where = config.plan or ", ".join(config.model_dir)
    if cases:
        logging.warning(
            "%s: %s of the split %s had the names of training cases of the model: %s",
            where,
            quantity(len(cases), "case"),
            config.split,
            first_few([*cases]),
        )
    if incomplete and config.split != "train":
        logging.warning(
            "%s: the model does not name all cases of %s that it was trained on, so "
            "whether cases of the split %s are among them is unknown",
            where,
            first_few([*incomplete]),
            config.split,
        )
    return _Seen(tuple(cases), tuple(incomplete))
