r"""Draws a sheet of pictures: references and predictions over the images.

  python -m u2net_tf.draw_overlays --image=raw/Task01/imagesTr \
      --reference=raw/Task01/labelsTr --prediction=predictions/Task01 \
      --output=overlays.png

Each of the three is a NIfTI, NRRD or MHA file or a folder of them; in folders, files of
the same name belong together, whatever their format, and an image without a prediction
is passed over. Repeat the flags to put several domains on one sheet. Above each case
stands its Dice in the whole volume. Needs matplotlib (`pip install
'u2net-tf[pictures]'`).
"""

import pathlib

from u2net_tf import command
from u2net_tf.config.visualization import OverlaysConfig


def main(config: OverlaysConfig) -> None:
    """Draws the sheet that the settings ask for."""
    from u2net_tf.plan.plan_file import load_plan
    from u2net_tf.visualization import overlays

    cases = overlays.find_cases(
        config.image,
        config.reference,
        config.prediction,
        max_cases=config.cases,
        plan=None if config.plan is None else load_plan(config.plan),
    )
    overlays.draw_overlays(cases, pathlib.Path(config.output))
    print(f"{config.output}: drew {', '.join(case.name for case in cases)}")


def run() -> None:
    """Entry point of `u2net-draw-overlays`."""
    command.start(main, OverlaysConfig)


if __name__ == "__main__":
    run()
