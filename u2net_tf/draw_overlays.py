r"""Draws references and predictions over their images, in one figure.

  python -m u2net_tf.draw_overlays --image=raw/Task01/imagesTr \
      --reference=raw/Task01/labelsTr --prediction=predictions/Task01 \
      --output=overlays.png

Each of the three inputs is a NIfTI, NRRD or MHA file or a folder of them. In folders,
files with the same name belong together, regardless of their format; images without a
prediction are skipped. If there is a dataset.json next to the folder of images, its
cases are found as in the survey, whether in files named as in nnU-Net or in a folder
per patient. The first modality is shown. Repeat the flags to show several domains in
one figure. The title of each case gives its Dice over the entire volume. Needs
matplotlib (`pip install 'u2net-tf[pictures]'`).
"""

import pathlib

from u2net_tf import command
from u2net_tf.config.visualization import OverlaysConfig


def main(config: OverlaysConfig) -> None:
    """Draws the figure."""
    from u2net_tf.plan.plan_file import load_plan
    from u2net_tf.visualization import overlay_cases, overlays

    cases = overlay_cases.find_cases(
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
