"""Label maps, and a domain with classes with and without anatomy codes and sides."""

import dataclasses

import invented_plan
import numpy as np

from u2net_tf.plan.labels import Label

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
    """Draws class indices (z, y, x); the last class of the domain is absent."""
    return np.random.default_rng(0).integers(0, num_classes, shape).astype(np.uint8)
