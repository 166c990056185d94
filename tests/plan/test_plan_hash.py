import dataclasses

import pytest
from invented_plan import ORGAN as DOMAIN

from u2net_tf.plan.labels import Label
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.plan.preprocessing import Preprocessing


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Task92"},
        {"modalities": ("ADC", "T2")},
        {"labels": (Label("background", (0,)), Label("organ", (1,)))},
        {"ignore_label": 9},
        {"spacing_mm": (3.0, 1.0, 1.1)},
        {"preprocessing": Preprocessing(margin_voxels=4)},
        {"preprocessing": Preprocessing(clip_percentiles=(2, 99))},
        {"preprocessing": Preprocessing(spacing_source="affine")},
        {"preprocessing": Preprocessing(unknown_labels="background")},
        {"preprocessing": Preprocessing(intensity_floor=-1024)},
        {"preprocessing": Preprocessing(intensity_floor=0)},
        {"preprocessing": Preprocessing(statistics_over="positive")},
        {"preprocessing": Preprocessing(size_rounding="truncate")},
    ],
)
def test_depends_on_settings_that_affect_the_shards(changes):
    changed = dataclasses.replace(DOMAIN, **changes)
    assert plan_hash(changed) != plan_hash(DOMAIN)


def test_never_changes():
    """Neither new fields nor renames in the code may change it."""
    assert plan_hash(DOMAIN) == (
        "b9d2ec9854b6457565ac1f9bb31dcaeb417e2f43ffa79ecb7f633e2536b252c0"
    )
    settings = Preprocessing(
        intensity_floor=-1024, statistics_over="positive", size_rounding="truncate"
    )
    changed = dataclasses.replace(DOMAIN, preprocessing=settings)
    assert plan_hash(changed) == (
        "96655a4a0e5495ed11a6078422315e9b84a4851288ee832b5a1947e991125c4c"
    )


def test_depends_on_the_floor():
    found = {
        plan_hash(
            dataclasses.replace(
                DOMAIN, preprocessing=Preprocessing(intensity_floor=floor)
            )
        )
        for floor in (-1024, -1024.0, -1000)
    }
    assert len(found) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": (16, 16, 16)},
        {"pools": (1, 1, 1)},
        {"batch_size": 1},
        {"median_shape": (1, 1, 1)},
        {"mirror_axes": ()},
        {"raw_dir": "elsewhere"},
        {"labels": (Label("background", (0,)), Label("renamed", (1, 2), 2))},
        {"train": ("a",)},
        {"validation": ()},
        {"train": (), "validation": (), "folds": (("a", "c"), ("b",))},
        # Integers, as people write them into a plan.
        {"spacing_mm": (3, 1, 1)},
        {"preprocessing": Preprocessing(clip_percentiles=(2, 98))},
    ],
)
def test_does_not_depend_on_other_settings(changes):
    changed = dataclasses.replace(DOMAIN, **changes)
    assert plan_hash(changed) == plan_hash(DOMAIN)
