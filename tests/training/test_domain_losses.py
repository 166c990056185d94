import contextlib
import dataclasses
from unittest import mock

import pytest
import toy

from u2net_tf.config.training import LossConfig, TrainConfig
from u2net_tf.errors import InputError
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Region
from u2net_tf.training import runs
from u2net_tf.training.domain_losses import DomainLoss, domain_losses

# The classes of a region may be in any order.
REGIONS = (Region("both", ("core", "rim")), Region("inner", ("core",)))
TWO = dataclasses.replace(toy.TWO, regions=REGIONS, ignore_label=9)
SPEC = ModelSpec(plan=Plan((toy.ONE, TWO)), pools=(1, 1, 1))


def losses_of(trained=SPEC.plan.domains, **settings):
    return domain_losses(LossConfig(**settings), SPEC, trained)


def test_regions_are_those_of_the_plan_by_class_index():
    assert losses_of(region_loss_weight=0.5) == (
        DomainLoss(region_weight=0.5),
        DomainLoss(3, ((1, 2), (2,)), 0.5),
    )


def test_without_a_weight_there_are_none():
    assert losses_of() == (DomainLoss(), DomainLoss(3))


def test_a_trained_domain_has_regions():
    assert losses_of([TWO], region_loss_weight=1.0)[1].regions
    message = "`region_loss_weight`: expected 0, as the plan has no regions for Task91"
    with pytest.raises(InputError, match=message):
        losses_of([toy.ONE], region_loss_weight=1.0)


@pytest.fixture
def train_independently(tmp_path, monkeypatch):
    """Returns the weight of each run."""

    def train(*domains):
        converted = Plan(domains), None
        monkeypatch.setattr(runs, "load_converted", lambda *arguments: converted)
        monkeypatch.setattr(
            runs, "run_in_progress", lambda *arguments: contextlib.nullcontext()
        )
        values = {
            **{
                "data_dir": str(tmp_path / "data"),
                "model_dir": str(tmp_path / "model"),
            },
            **{"patch_size": (8, 8, 8), "pools": (1, 1, 1), "distribution": "none"},
            **{"independent": True, "region_loss_weight": 0.5},
        }
        with mock.patch.object(runs, "train") as called:
            runs.train_independently(TrainConfig.from_flat(values))
        return [call.args[0].loss.region_loss_weight for call in called.call_args_list]

    return train


def test_of_independent_networks_only_some_need_regions(train_independently):
    assert train_independently(toy.ONE, TWO) == [0.0, 0.5]


def test_of_independent_networks_at_least_one_needs_regions(train_independently):
    with pytest.raises(InputError, match="no regions for Task91_One. Received: 0.5"):
        train_independently(toy.ONE)
