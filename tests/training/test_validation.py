"""The Dice of monitored cases."""

import dataclasses
import types

import numpy as np
import pytest
import toy

from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Region
from u2net_tf.training import validation


@pytest.fixture
def validate(monkeypatch):
    """Scores a case, the last two voxels of which have index 2."""
    record = types.SimpleNamespace(
        image=None, labels=np.array([[[1, 1, 0, 2, 2]]], np.uint8)
    )
    monkeypatch.setattr(validation, "_monitored_records", lambda *_: [record])

    def validate(domain):
        predictor = types.SimpleNamespace(
            spec=types.SimpleNamespace(plan=Plan((domain,))),
            classes=lambda image, index: np.array([[[1, 1, 0, 1, 0]]], np.uint8),
        )
        return validation.validate(predictor, {0: None}, num_cases=1)

    return validate


def test_voxels_without_annotation_are_left_out(validate):
    domain = dataclasses.replace(toy.ONE, ignore_label=9)
    assert validate(domain) == {"Task91_One": {"organ": 1.0}}


def test_without_an_ignore_label_another_index_is_an_error(validate):
    with pytest.raises(ValueError, match="class indices from 0 to 1"):
        validate(toy.ONE)


def test_regions_follow_the_classes(monkeypatch):
    regions = (Region("all", ("core", "rim")), Region("inner", ("core",)))
    domain = dataclasses.replace(toy.TWO, regions=regions, ignore_label=9)
    # Index 3 is not annotated.
    labels = np.array([[[1, 1, 2, 2, 0, 3]]], np.uint8)
    record = types.SimpleNamespace(image=None, labels=labels)
    monkeypatch.setattr(validation, "_monitored_records", lambda *_: [record])
    predictor = types.SimpleNamespace(
        spec=types.SimpleNamespace(plan=Plan((domain,))),
        classes=lambda image, index: np.array([[[1, 2, 2, 0, 1, 1]]], np.uint8),
    )
    found = validation.validate(predictor, {0: None}, num_cases=1)
    assert found == {
        "Task92_Two": {
            "rim": pytest.approx(2 / 4),
            "core": pytest.approx(2 / 4),
            "all": pytest.approx(6 / 8),
            "inner": pytest.approx(2 / 4),
        }
    }
    assert [*found["Task92_Two"]] == domain.scored_names
