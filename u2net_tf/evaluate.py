"""Scores a trained model on raw scans, on their original grid.

  python -m u2net_tf.evaluate --model_dir=DIR --output_dir=DIR

Prints the Dice of each class, as in Table 2 of the paper, and writes dice.csv,
summary.json and the predicted label maps. An interrupted run resumes where it left off.
Cases that cannot be used are listed with the reason at the end; the exit status is
then 1.
"""

from __future__ import annotations

from u2net_tf import command, machine
from u2net_tf.config import flagfile
from u2net_tf.config.evaluation import EvaluateConfig
from u2net_tf.wording import quantity


def main(config: EvaluateConfig) -> None:
    """Scores every domain and prints the table."""
    machine.import_tensorflow()
    from u2net_tf.evaluation.evaluate_model import evaluate_model

    progress = command.progress_every(config.log.log_every_seconds)
    found = evaluate_model(config, progress=progress)
    print(found.table(config.surface_tolerance_mm))
    print(
        f"{quantity(found.num_cases, f'{config.split} case')} scored with "
        f"{found.checkpoint}{_settings(config)}: dice.csv, summary.json and "
        f"predictions in {found.output_dir}"
    )
    command.exit_if_skipped(found.skipped, found.num_all, "case")


def _settings(config: EvaluateConfig) -> str:
    """Returns the flags that change predictions, if there are any."""
    settings = {**config.changed_prediction, **config.windows.postprocessing}
    if config.windows.prune_to is not None:
        settings["prune_to"] = config.windows.prune_to
    flags = " ".join(flagfile.to_line(name, value) for name, value in settings.items())
    return f" and {flags}" if flags else ""


def run() -> None:
    """Entry point of `u2net-evaluate`."""
    command.start(main, EvaluateConfig)


if __name__ == "__main__":
    run()
