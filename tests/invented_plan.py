"""Domains for tests of plans and shards; in `PLAN` no setting has its default."""

import dataclasses

from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import Preprocessing

KNEE = Domain(
    name="Knee",
    raw_dir="/raw/Knee",
    modalities=("T1", "T2"),
    labels=(
        Label("background", (0,)),
        Label("bone", (3, 1), keep_components=2),
    ),
    spacing_mm=(3.6, 0.625, 0.7),
    median_shape=(20, 320, 319),
    patch_size=(20, 192, 96),
    pools=(2, 5, 4),
    batch_size=4,
    mirror_axes=("x", "z"),
    preprocessing=Preprocessing(
        margin_voxels=3,
        clip_percentiles=(0.5, 99.5),
        spacing_source="affine",
        unknown_labels="background",
        intensity_floor=-1024.0,
        statistics_over="positive",
        size_rounding="truncate",
    ),
    train=("a", "b"),
    validation=("c",),
    test=("d",),
)
HIP = dataclasses.replace(KNEE, name="Hüfte", validation=(), mirror_axes=())
PLAN = Plan(domains=(KNEE, HIP), seed=7)
ORGAN = Domain(
    name="Task90_Organ",
    raw_dir="raw/Task90_Organ",
    modalities=("T2", "ADC"),
    labels=(Label("background", (0,)), Label("organ", (1, 2))),
    spacing_mm=(3.0, 1.0, 1.0),
    median_shape=(16, 32, 32),
    patch_size=(8, 16, 16),
    pools=(2, 3, 3),
    batch_size=4,
    train=("a", "b"),
    validation=("c",),
    test=("d",),
)
