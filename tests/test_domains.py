import copy
import dataclasses

import pytest

from u2net_tf.command import InputError
from u2net_tf.domains import Domain, Label, Plan, Preprocessing

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


def test_what_a_domain_knows():
    assert KNEE.num_modalities == 2
    assert KNEE.num_classes == 2
    assert KNEE.cases("train") == ("a", "b")
    assert KNEE.cases("validation") == ("c",)
    assert KNEE.cases("test") == ("d",)
    assert KNEE.watched_split == "validation"
    assert HIP.watched_split == "test"
    with pytest.raises(ValueError, match="split: expected one of"):
        KNEE.cases("val")


def test_domains_by_name():
    assert PLAN.names == ("Knee", "Hüfte")
    assert PLAN.index("Hüfte") == 1
    assert PLAN.select(["Hüfte", "Knee"]).names == ("Hüfte", "Knee")
    assert PLAN.select(["Hüfte"]).seed == 7
    assert PLAN.select([]) is PLAN
    with pytest.raises(InputError, match="'Elbow' is not in the plan.*Knee, Hüfte"):
        PLAN.select(["Elbow"])


def test_plans_compare_by_content():
    assert copy.deepcopy(PLAN) == PLAN
    assert dataclasses.replace(PLAN, seed=8) != PLAN


def test_a_domain_cannot_be_selected_twice():
    with pytest.raises(InputError, match="expected each once"):
        PLAN.select(["Knee", "Knee"])
