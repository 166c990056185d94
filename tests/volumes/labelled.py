"""A domain whose classes have a code, one with a side, or none; and label maps."""

import dataclasses

import invented_plan
import numpy as np

from u2net_tf.plan.domains import Label

LONG = "Größe \\ " + "x" * 70
DOMAIN = dataclasses.replace(
    invented_plan.ORGAN,
    name="Task03_Liver",
    labels=(
        Label("background", (0,)),
        Label("liver", (1,)),
        Label("left_kidney", (7, 8)),
        Label(LONG, (300,)),
        Label("absent & <none>", (9,)),
    ),
)
VALUES = (0, 1, 7, 300)


def make_classes(shape, num_classes=4):
    """(z, y, x) class indices; the last class of the domain is absent."""
    return np.random.default_rng(0).integers(0, num_classes, shape).astype(np.uint8)
