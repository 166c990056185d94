"""Unreasonable sizes are refused before memory of that size is allocated."""

import dataclasses
import json
import math

import pydantic
import pytest
import toy

from u2net_tf.config.base import to_input_error
from u2net_tf.config.network import NetworkConfig
from u2net_tf.config.published_weights import PortConfig
from u2net_tf.config.training import TrainConfig
from u2net_tf.errors import InputError
from u2net_tf.models.spec import MODEL, ModelSpec
from u2net_tf.plan import limits
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import PLAN

SPEC = MODEL.to_dict(ModelSpec(plan=toy.PLAN, pools=(1, 1, 1)))
DOMAIN = SPEC["plan"]["domains"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pools": [64, 64, 64]}, "pools[0]: expected a number of at most 10"),
        ({"pools": [8, 8, 8]}, "pools: expected a smallest patch of at most 2,097,152"),
        ({"pools": [0, 0, 0]}, "pools: expected at least one axis to be halved"),
        ({"pools": [1, 1]}, "pools[2]: expected a value. Received: nothing"),
        ({"pools": [1, 1, True]}, "pools[2]: expected an integer. Received: True"),
        ({"pools": [1, 1, -1]}, "pools[2]: expected a number of at least 0"),
        ({"base_channels": 10**9}, "base_channels: expected a number of at most 4096"),
        ({"base_channels": 0}, "base_channels: expected a number of at least 1"),
        (
            {"base_channels": 4096},
            "base_channels: expected at most 2048 with pools (1,",
        ),
        ({"adapter": "x"}, "adapter: expected 'separable', 'series', 'parallel' or '"),
        ({"patch_size": [513, 512, 512]}, "patch_size: expected at most 134,217,728 v"),
        ({"patch_size": [8, 8, math.nan]}, "patch_size[2]: expected an integer"),
    ],
)
def test_of_a_model(changes, message):
    with pytest.raises(InputError) as caught:
        MODEL.from_text(json.dumps({**SPEC, **changes}), "step-3")
    assert str(caught.value).startswith(f"step-3: {message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"spacing_mm": [1, 1, 1e4]},
            "spacing_mm[2]: expected a number of at most 100",
        ),
        ({"spacing_mm": [1e-9, 1, 1]}, "spacing_mm[0]: expected a number of at least "),
        (
            {"spacing_mm": [1, 1, "1"]},
            "spacing_mm[2]: expected a number. Received: '1'",
        ),
        (
            {"modalities": [f"{i}" for i in range(257)]},
            "modalities: expected at most 2",
        ),
        ({"patch_size": [1024] * 3}, "patch_size: expected at most 134,217,728 voxels"),
        ({"pools": [0, 0, 11]}, "pools[2]: expected a number of at most 10"),
        ({"labels": DOMAIN["labels"] * 1000}, "labels: expected 2 to 256 classes"),
    ],
)
def test_of_a_plan(changes, message):
    content = {**SPEC["plan"], "format": PLAN.number}
    content["domains"] = [{**DOMAIN, **changes}]
    with pytest.raises(InputError) as caught:
        PLAN.from_text(json.dumps(content), "plan.json")
    assert str(caught.value).startswith(f"plan.json: domains[0].{message}")


def test_of_the_number_of_domains():
    domains = tuple(dataclasses.replace(toy.ONE, name=f"{i}") for i in range(257))
    assert len(Plan(domains[:256]).domains) == 256
    with pytest.raises(InputError, match="domains: expected at most 256 items"):
        Plan(domains=domains)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (NetworkConfig, {"base_channels": 10**9}, "`base_channels`: expected a number"),
        (
            NetworkConfig,
            {"pools": (64, 1, 1)},
            "`pools`: expected a number of at most ",
        ),
        (NetworkConfig, {"pools": (7, 7, 8)}, "`pools`: expected a smallest patch of "),
        (
            NetworkConfig,
            {"pools": (7, 7, 7), "base_channels": 33},
            "`base_channels`: expected at most 32 with pools (7, 7, 7)",
        ),
        (
            TrainConfig,
            {"patch_size": (1024, 1024, 1024), "data_dir": "a", "model_dir": "b"},
            "`patch_size`: expected at most 134,217,728 voxels. Received: (1024, ",
        ),
        (
            PortConfig,
            {"patch_size": (0, 8, 8), "weights": "", "plan": "", "model_dir": ""},
            "`patch_size`: expected a number of at least 1",
        ),
    ],
)
def test_of_settings(config, values, message):
    with pytest.raises(pydantic.ValidationError) as caught:
        config.from_flat(values)
    assert str(to_input_error(caught.value)).startswith(message)


def test_large_networks_are_allowed():
    """A network far larger than the published one."""
    limits.require_network(64, (6, 6, 6))
    dataclasses.replace(toy.ONE, patch_size=(512, 512, 512))
    assert NetworkConfig(base_channels=32, pools=(7, 7, 7)).pools == (7, 7, 7)
