"""Scores a trained model on raw scans, in their own grid.

  python -m u2net_tf.evaluate --model_dir=DIR --output_dir=DIR

Prints the paper's Table 2 for the model's domains and writes dice.csv, summary.json
and the predicted label maps. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from u2net_tf import command
from u2net_tf.domains import Domain, Plan
from u2net_tf.inference import flags as inference_flags

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder that training wrote.")
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder for scores and predictions; MODEL_DIR/SPLIT if empty."
)
_RAW_DIR = flags.DEFINE_string(
    "raw_dir",
    None,
    "Folder with a folder per domain, if the scans have moved since the survey.",
)
_DOMAINS = flags.DEFINE_list("domains", [], "Domains to score; all if empty.")
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["train", "validation", "test"], "Cases to score."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite",
    False,
    "Predict and score every case again, and write over label maps that were edited.",
)
flags.adopt_module_key_flags(inference_flags)


def main(argv: Sequence[str]) -> None:
    """Scores every domain and prints the table."""
    del argv
    command.required(_MODEL_DIR)
    command.import_tensorflow()
    from u2net_tf import files
    from u2net_tf.evaluation import report, scoring
    from u2net_tf.inference.predictor import Predictor

    output_dir = pathlib.Path(
        _OUTPUT_DIR.value or pathlib.Path(_MODEL_DIR.value) / _SPLIT.value
    )
    chosen = _choose()
    # All files are looked for before the first prediction.
    cases = {
        domain.name: scoring.find_cases(domain, _SPLIT.value, _RAW_DIR.value)
        for _, domain in chosen
    }
    if not any(cases.values()):
        raise command.InputError(
            f"--split: expected cases in {_SPLIT.value!r}, found none in the plan"
        )
    scores = []
    checkpoints: dict[pathlib.Path, str] = {}
    loaded = None
    for folder, domain in chosen:
        if folder != loaded:
            predictor = Predictor.from_model_dir(folder, **inference_flags.settings())
            loaded = folder
            checkpoints[folder] = predictor.checkpoint
        scores += scoring.score_domain(
            predictor,
            predictor.spec.plan.index(domain.name),
            cases[domain.name],
            output_dir,
            overwrite=_OVERWRITE.value,
        )
    checkpoint = ", ".join(checkpoints.values())
    rows = report.summarize(scores, [domain for _, domain in chosen])
    files.write_text(output_dir / "dice.csv", report.cases_to_csv(scores))
    files.write_text(
        output_dir / "summary.json",
        report.summary_to_json(rows, split=_SPLIT.value, checkpoint=checkpoint),
    )
    print(report.format_table(rows))
    print(
        f"{len(scores)} {_SPLIT.value} cases of {checkpoint}: dice.csv, summary.json "
        f"and predictions in {output_dir}"
    )


def _choose() -> list[tuple[pathlib.Path, Domain]]:
    """The folder of the model and the plan of every domain to score, in order."""
    from u2net_tf.models.checkpoints import load_spec, serving

    folders = serving(_MODEL_DIR.value)
    checkpoint = inference_flags.settings()["checkpoint"]
    plans = {
        folder: load_spec(folder, checkpoint).plan for folder in set(folders.values())
    }
    joint = Plan(
        tuple(
            plans[folder].domains[plans[folder].index(name)]
            for name, folder in folders.items()
        )
    )
    chosen = joint.select(_DOMAINS.value).domains
    return [(folders[domain.name], domain) for domain in chosen]


def run() -> None:
    """Entry point of `u2net-evaluate`."""
    command.start(main)


if __name__ == "__main__":
    run()
