import contextlib
import dataclasses
import shutil
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.config.training import LossConfig, TrainConfig
from u2net_tf.errors import InputError
from u2net_tf.losses import region_loss, segmentation_loss
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Region
from u2net_tf.plan.plan_file import plan_to_json
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


@pytest.mark.parametrize("detach_factor", [False, True])
def test_loss_and_gradient_are_those_of_classes_and_regions(detach_factor):
    generator = np.random.default_rng(0)
    # Some voxels are not annotated.
    labels = generator.integers(4, size=(2, 2, 3, 4))
    logits = tf.Variable(generator.normal(size=(2, 2, 3, 4, 3)))
    options = {"detach_factor": detach_factor, "ignore_index": 3}
    with tf.GradientTape(persistent=True) as tape:
        found = DomainLoss(3, ((1, 2), (2,)), 0.5)(
            labels, logits, detach_factor=detach_factor
        )
        expected = segmentation_loss(labels, logits, **options)
        expected += 0.5 * region_loss(labels, logits, [(1, 2), (2,)], **options)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(
        tape.gradient(found, logits), tape.gradient(expected, logits)
    )


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


@pytest.mark.usefixtures("toy_network", "shared_input", "eager_steps")
class TestResumingWithOtherRegions:
    """Another plan changes the result, as another flag would."""

    @pytest.fixture
    def resume(self, train, tiny_data, tmp_path, caplog):
        """Trains with regions, and again with others; returns the warnings."""

        def call(before, after, **settings):
            folder = tmp_path / "data"
            shutil.copytree(tiny_data.data_dir, folder)
            for epochs, regions in enumerate((before, after), start=1):
                caplog.clear()
                domains = [
                    dataclasses.replace(domain, regions=regions)
                    if domain.name == toy.TWO.name
                    else domain
                    for domain in tiny_data.plan.domains
                ]
                plan = dataclasses.replace(tiny_data.plan, domains=tuple(domains))
                (folder / "plan.json").write_text(plan_to_json(plan))
                train(
                    tmp_path / "model",
                    data_dir=folder,
                    domains=(toy.TWO.name,),
                    steps_per_epoch=1,
                    max_epochs=epochs,
                    **settings,
                )
            return [each for each in caplog.messages if "regions of" in each]

        return call

    def test_warns(self, resume, tmp_path):
        assert resume(REGIONS, REGIONS[:1], region_loss_weight=0.5) == [
            f"{tmp_path / 'data' / 'plan.json'}: the regions of {toy.TWO.name} have "
            "changed since the last checkpoint, so the result will differ from that of "
            "an uninterrupted run"
        ]

    def test_other_names_and_another_order_do_not_matter(self, resume):
        renamed = (Region("tumour", ("core",)), Region("all", ("rim", "core")))
        assert resume(REGIONS, renamed, region_loss_weight=0.5) == []

    def test_without_a_weight_they_are_only_scored(self, resume):
        assert resume(REGIONS, REGIONS[:1]) == []
