"""Draws the curves of a training run: loss and Dice.

  python -m u2net_tf.plot_training --model_dir=model --output=curves.png

Reads `MODEL_DIR/training.csv`, which training writes as it goes, so the run may be
finished, stopped or still going. The Dice is that of validation cases, or of test cases
where a domain has none; the picture says which, once there is a checkpoint. Needs
matplotlib (`pip install 'u2net-tf[pictures]'`).
"""

import pathlib

from u2net_tf import command
from u2net_tf.config.visualization import CurvesConfig


def main(config: CurvesConfig) -> None:
    """Draws the curves that the settings ask for."""
    from u2net_tf.visualization import curves

    model_dir = pathlib.Path(config.model_dir)
    curves.draw_curves(
        model_dir, pathlib.Path(config.output), splits=_monitored_splits(model_dir)
    )
    print(f"{config.output}: drew the curves of {config.model_dir}")


def _monitored_splits(model_dir: pathlib.Path) -> dict[str, str]:
    """Domain -> cases that training scores; nothing before the first checkpoint."""
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
