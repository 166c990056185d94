"""Scores a trained model on raw scans, in their own grid.

  python -m u2net_tf.evaluate --model_dir=DIR --output_dir=DIR

Prints the paper's Table 2 for the model's domains and writes dice.csv, summary.json
and the predicted label maps. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import pathlib

from u2net_tf import command, machine
from u2net_tf.config.inference import EvaluateConfig
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.wording import quantity


def main(config: EvaluateConfig) -> None:
    """Scores every domain and prints the table."""
    machine.import_tensorflow()
    from u2net_tf import files
    from u2net_tf.evaluation import scoring, tables
    from u2net_tf.inference.predictor import Predictor

    output_dir = pathlib.Path(
        config.output_dir or pathlib.Path(config.model_dir) / config.split
    )
    chosen = _choose(config)
    # All files are looked for before the first prediction.
    cases = {
        domain.name: scoring.find_cases(domain, config.split, config.raw_dir)
        for _, domain in chosen
    }
    if not any(cases.values()):
        raise command.InputError(
            "`split`",
            expected=f"cases in {config.split!r}",
            received="none in the plan",
        )
    scores = []
    checkpoints: dict[pathlib.Path, str] = {}
    loaded = None
    for folder, domain in chosen:
        if folder != loaded:
            predictor = Predictor.from_model_dir(
                folder, progress=command.progress_bar, **config.windows.flat()
            )
            loaded = folder
            checkpoints[folder] = predictor.checkpoint
        scores += scoring.score_domain(
            predictor,
            predictor.spec.plan.index(domain.name),
            cases[domain.name],
            output_dir,
            overwrite=config.overwrite,
            progress=command.progress_bar,
        )
    checkpoint = ", ".join(checkpoints.values())
    rows = tables.summarize(scores, [domain for _, domain in chosen])
    files.write_text(output_dir / "dice.csv", tables.cases_to_csv(scores))
    files.write_text(
        output_dir / "summary.json",
        tables.summary_to_json(rows, split=config.split, checkpoint=checkpoint),
    )
    print(tables.format_table(rows))
    print(
        f"{quantity(len(scores), f'{config.split} case')} of {checkpoint}: dice.csv, "
        f"summary.json and predictions in {output_dir}"
    )


def _choose(config: EvaluateConfig) -> list[tuple[pathlib.Path, Domain]]:
    """The folder of the model and the plan of every domain to score, in order."""
    from u2net_tf.models.loading import load_spec, models_by_domain

    folders = models_by_domain(config.model_dir)
    plans = {
        folder: load_spec(folder, config.windows.checkpoint).plan
        for folder in set(folders.values())
    }
    joint = Plan(
        tuple(
            plans[folder].domains[plans[folder].index(name)]
            for name, folder in folders.items()
        )
    )
    chosen = joint.select(config.domains).domains
    return [(folders[domain.name], domain) for domain in chosen]


def run() -> None:
    """Entry point of `u2net-evaluate`."""
    command.start(main, EvaluateConfig)


if __name__ == "__main__":
    run()
