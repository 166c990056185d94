"""Plots the loss and the Dice of a training run.

  python -m u2net_tf.plot_training --model_dir=model --output=curves.png

Reads `MODEL_DIR/training.csv`, which training extends as it runs, so the run may be
finished, stopped or in progress. The Dice is that of the validation cases or, in
domains without any, of the test cases; the figure says which, once a checkpoint exists.
Needs matplotlib (`pip install 'u2net-tf[pictures]'`).
"""

import pathlib

from u2net_tf import command
from u2net_tf.config.visualization import CurvesConfig


def main(config: CurvesConfig) -> None:
    """Draws the curves."""
    from u2net_tf.visualization import curves

    model_dir = pathlib.Path(config.model_dir)
    curves.draw_curves(
        model_dir, pathlib.Path(config.output), splits=_monitored_splits(model_dir)
    )
    print(f"{config.output}: drew the curves of {config.model_dir}")


def _monitored_splits(model_dir: pathlib.Path) -> dict[str, str]:
    """Returns domain -> monitored split; empty before the first checkpoint."""
    from u2net_tf.models.describe_model import describe_models

    try:
        models = describe_models(model_dir)
    except command.InputError:
        return {}
    return {
        domain.name: "validation" if domain.cases["validation"] else "test"
        for model in models
        for domain in model.domains
    }


def run() -> None:
    """Entry point of `u2net-plot-training`."""
    command.start(main, CurvesConfig)


if __name__ == "__main__":
    run()
