"""Evaluates a model, or a folder of independent ones, on the cases of a split."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import pathlib
from collections.abc import Sequence

from absl import logging

from u2net_tf import files, locks
from u2net_tf.config.inference import EvaluateConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation import listed_cases, scoring, tables
from u2net_tf.inference import outputs
from u2net_tf.inference.backends import keras
from u2net_tf.models.checkpoint_paths import checkpoint_hash
from u2net_tf.models.loading import load_spec, models_by_domain
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import msd
from u2net_tf.wording import first_few, quantity


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate_model`.

    Attributes:
      rows: the scores per class.
      num_cases: number of cases that were scored.
      checkpoint: path of the model's checkpoint, or several paths.
      output_dir: folder of the files that were written.
      skipped: "domain/case" -> reason of the cases that could not be used.
    """

    rows: list[tables.ClassScore]
    num_cases: int
    checkpoint: str
    output_dir: pathlib.Path
    skipped: dict[str, InputError]


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
    output_dir = pathlib.Path(
        config.output_dir or pathlib.Path(config.model_dir) / config.split
    )
    with locks.locked(output_dir):
        return _evaluate(config, output_dir, progress)


def _evaluate(
    config: EvaluateConfig, output_dir: pathlib.Path, progress: Progress
) -> Evaluation:
    chosen, training_cases = _choose(config)
    cases, skipped = _find_cases(config, [domain for _, domain in chosen])
    outputs.require_writable([output_dir / "dice.csv", output_dir / "summary.json"])
    scores: list[tables.CaseScore] = []
    checkpoints: dict[pathlib.Path, str] = {}
    depths: dict[str, int | None] = {}
    hashes: dict[pathlib.Path, str] = {}
    for folder, of_folder in itertools.groupby(chosen, key=lambda choice: choice[0]):
        predictor = keras.load_predictor(folder, config.windows, progress=progress)
        checkpoints[folder] = predictor.checkpoint
        hashes[folder] = checkpoint_hash(predictor.checkpoint)
        for _, domain in of_folder:
            depths[domain.name] = predictor.spec.depth
            found = scoring.score_domain(
                predictor,
                predictor.spec.plan.index(domain.name),
                cases[domain.name],
                output_dir,
                reading=config.reading,
                overwrite=config.overwrite,
                progress=progress,
            )
            scores += found.scores
            skipped |= _of_domain(domain, found.skipped)
        # One model in memory at a time; `del` does not break its reference cycles.
        del predictor
        gc.collect()
    if not scores:
        raise InputError(
            "`split`",
            expected="at least one usable case",
            received="none",
            hint=f"The first problem is: {next(iter(skipped.values()))}",
        )
    rows = tables.summarize(scores, [domain for _, domain in chosen])
    summary = tables.Summary(
        split=config.split,
        checkpoint=", ".join(checkpoints.values()),
        mean_dice=tables.mean_dice(rows),
        classes=tuple(rows),
        skipped={name: str(error) for name, error in skipped.items()},
        postprocessing=config.windows.postprocessing,
        prediction=config.changed_prediction,
        depths={name: d for name, d in depths.items() if d is not None},
        checkpoint_hashes={domain.name: hashes[folder] for folder, domain in chosen},
        training_cases=training_cases,
    )
    files.write_text(output_dir / "dice.csv", tables.cases_to_csv(scores))
    files.write_text(output_dir / "summary.json", tables.summary_to_json(summary))
    return Evaluation(rows, len(scores), summary.checkpoint, output_dir, skipped)


def _find_cases(
    config: EvaluateConfig, domains: Sequence[Domain]
) -> tuple[dict[str, list[msd.Case]], dict[str, InputError]]:
    """Returns the cases of each domain, and the reasons why others are skipped."""
    cases = {
        domain.name: scoring.find_cases(domain, config.split, config.raw_dir)
        for domain in domains
    }
    if not any(cases.values()):
        raise InputError(
            "`split`",
            expected=f"cases in {config.split!r}",
            received="none in the plan",
        )
    skipped: dict[str, InputError] = {}
    for domain in domains:
        bad = scoring.check_headers(domain, cases[domain.name], config.reading)
        skipped |= _of_domain(domain, bad)
        cases[domain.name] = [c for c in cases[domain.name] if c.name not in bad]
    return cases, skipped


def _of_domain(domain: Domain, bad: dict[str, InputError]) -> dict[str, InputError]:
    return {f"{domain.name}/{name}": error for name, error in bad.items()}


def _choose(
    config: EvaluateConfig,
) -> tuple[list[tuple[pathlib.Path, Domain]], tuple[str, ...]]:
    """Returns the domains to score, in order, with the folders of their models.

    Also returns the cases that the models list for training.
    """
    folders = models_by_domain(config.model_dir)
    specs = {
        folder: load_spec(folder, config.windows.checkpoint)
        for folder in set(folders.values())
    }
    joint = Plan(
        tuple(
            specs[folder].plan.domains[specs[folder].plan.index(name)]
            for name, folder in folders.items()
        )
    )
    chosen = [
        listed_cases.ModelDomain(folders[name], specs[folders[name]], name)
        for name in joint.select(config.domains).names
    ]
    for folder in dict.fromkeys(one.folder for one in chosen):
        keras.require_settings(specs[folder], config.windows, folder)
    domains = listed_cases.list_cases(chosen, config.plan, config.fold)
    training_cases = listed_cases.list_training_cases(chosen, domains, config.split)
    if training_cases:
        logging.warning(
            "%s: %s of the split %s had the names of training cases of the model: %s",
            config.plan,
            quantity(len(training_cases), "case"),
            config.split,
            first_few(training_cases),
        )
    folders_of = [one.folder for one in chosen]
    return list(zip(folders_of, domains, strict=True)), training_cases
