"""Draws the curves of a training run: loss and validation Dice.

  python -m u2net_tf.plot_training --model_dir=model --output=curves.png

Reads `MODEL_DIR/training.csv`, which training writes as it goes, so the run may be
finished, stopped or still going. Needs matplotlib
(`pip install 'u2net-tf[pictures]'`).
"""

import pathlib

from u2net_tf import command
from u2net_tf.config.visualization import CurvesConfig


def main(config: CurvesConfig) -> None:
    """Draws the curves that the settings ask for."""
    from u2net_tf.visualization import curves

    curves.draw_curves(pathlib.Path(config.model_dir), pathlib.Path(config.output))
    print(f"{config.output}: drew the curves of {config.model_dir}")


def run() -> None:
    """Entry point of `u2net-plot-training`."""
    command.start(main, CurvesConfig)


if __name__ == "__main__":
    run()
