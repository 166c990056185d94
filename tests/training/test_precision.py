"""Training in half precision: the types of its computations, and loss scaling."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.config.training import LossConfig
from u2net_tf.losses import focal
from u2net_tf.models.build import build_network
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.loading import load_network
from u2net_tf.models.run_state import RunState
from u2net_tf.models.spec import ModelSpec
from u2net_tf.training.head_weights import head_weights
from u2net_tf.training.step import Trainer

pytestmark = pytest.mark.usefixtures("plain_implementation_in_module")
SHARP = {"architecture": "unet_sharp", "depth": 1}
PRECISIONS = ("mixed_float16", "mixed_bfloat16")


class Overflowing(toy.ToyNetwork):
    """Its gradient overflows while the loss is scaled by more than `limit`."""

    limit = 2.0**13
    scale = None

    def call(self, inputs, *, domain, training=None):
        logits = super().call(inputs, domain=domain, training=training)

        @tf.custom_gradient
        def passed(value):
            def gradient(upstream):
                infinite = tf.constant(np.inf, value.dtype)
                return tf.where(self.scale > self.limit, infinite, upstream)

            return tf.identity(value), gradient

        return passed(logits)


def make_network(kind=toy.ToyNetwork, precision="mixed_float16"):
    keras.utils.set_random_seed(0)
    network = kind(
        [d.num_modalities for d in toy.PLAN.domains],
        [d.num_classes for d in toy.PLAN.domains],
        dtype=precision,
    )
    network.build()
    return network


def make_trainer(network, **options):
    return Trainer(network, **{"learning_rate": 0.01, "weight_decay": 0.1, **options})


@pytest.fixture(
    scope="module",
    params=[
        ("mixed_float16", {}),
        *(
            pytest.param(case, marks=pytest.mark.slow)
            for case in (
                ("mixed_bfloat16", {}),
                ("mixed_float16", SHARP),
                ("mixed_bfloat16", SHARP),
            )
        ),
    ],
    ids=lambda case: "-".join([case[0], *case[1].values()][:2]),
)
def trained(request):
    """The real network after two steps in half and in single precision.

    It has no adapters: the paper's network takes longer, and `test_execution.py` tests
    its parts in half precision.
    """
    half, settings = request.param
    spec = ModelSpec(
        plan=toy.PLAN, pools=(1, 0, 1), base_channels=2, adapter="none", **settings
    )
    losses, trainers, movements = {}, {}, {}
    for precision in (half, "float32"):
        keras.utils.set_random_seed(0)
        # No decay, as it would outweigh the gradients and decide the direction.
        network = build_network(spec, dtype=precision)
        trainer = make_trainer(
            network, weight_decay=0.0, head_weights=head_weights(LossConfig(), spec)
        )
        # The gradient of a bias right before a norm consists of rounding errors.
        moving = [v for v in network.shared_variables if "bias" not in v.path]
        before = toy.values_of(moving)
        with toy.eager_steps():
            losses[precision] = [
                trainer.step(0, toy.draw_batch(toy.ONE, seed)) for seed in (0, 1)
            ]
        trainers[precision] = trainer
        movements[precision] = np.concatenate(
            [
                (end - start).ravel()
                for start, end in zip(before, toy.values_of(moving), strict=True)
            ]
        )
    return half, losses, trainers, movements


class TestTraining:
    def test_is_close_to_single_precision(self, trained):
        precision, losses, _, _ = trained
        assert losses[precision] != losses["float32"]
        np.testing.assert_allclose(losses[precision], losses["float32"], rtol=0.02)

    def test_computes_in_half_and_stores_in_single(self, trained):
        precision, _, trainers, _ = trained
        network = trainers[precision].network
        assert network.compute_dtype == precision.removeprefix("mixed_")
        assert {v.dtype for v in network.variables} == {"float32"}
        hidden = network.stem(tf.zeros([1, 2, 2, 2, 1]), domain=0)
        assert hidden.dtype.name == network.compute_dtype

    def test_variables_change_in_similar_directions(self, trained):
        precision, _, _, movements = trained
        half, single = movements[precision], movements["float32"]
        # The cosine of the angle between them. Where a gradient is close to 0, rounding
        # decides the direction of Adam's step.
        lengths = np.linalg.norm(half) * np.linalg.norm(single)
        assert half @ single > 0.6 * lengths

    def test_only_float16_is_scaled(self, trained):
        precision, _, trainers, _ = trained
        scaled = trainers[precision].loss_scale is not None
        assert scaled == (precision == "mixed_float16")
        assert trainers["float32"].loss_scale is None


class TestLossScale:
    def test_preserves_small_gradients(self, monkeypatch):
        """Without the scale, they would be 0 in float16."""
        # Only the focal loss, which is smooth: Lovász-Softmax sorts, and rounding would
        # decide the order of almost equal logits.
        monkeypatch.setattr(
            "u2net_tf.training.domain_losses.segmentation_loss",
            lambda labels, logits, **options: focal(labels, logits),
        )
        gradients = {}
        for precision in ("mixed_float16", "float32"):
            network = make_network(precision=precision)
            trainer = make_trainer(network, weight_decay=0.0)
            # Gradients as small as after long training.
            images = tf.cast(toy.draw_batch(toy.ONE)["image"], tf.float32)
            for head in network.heads:
                head.assign(head * 1e-3)
            batch = {
                "image": images * 1e-3,
                "labels": toy.draw_batch(toy.ONE)["labels"],
            }
            _, values, finite = trainer._differentiate(
                0,
                [variable.value for variable in network.domain_variables(0)],
                batch["image"],
                batch["labels"],
            )
            assert bool(finite)
            gradients[precision] = [value.numpy() for value in values]
        for half, single in zip(*gradients.values(), strict=True):
            assert np.abs(single).max() < 1e-3
            scale = np.abs(single).max()
            np.testing.assert_allclose(half, single, rtol=0, atol=0.02 * scale)

    def test_an_overflow_skips_the_step_and_halves_it(self):
        network = make_network(Overflowing)
        trainer = make_trainer(network)
        network.scale = trainer.loss_scale.value
        variables = [
            *network.variables,
            *(v for o in trainer.optimizers for v in o.variables),
        ]
        scales, moved = [], []
        for _ in range(4):
            before = toy.values_of(variables)
            assert np.isfinite(trainer.step(0, toy.draw_batch(toy.ONE)))
            scales.append(float(trainer.loss_scale.value))
            pairs = zip(before, toy.values_of(variables), strict=True)
            moved.append(any((one != other).any() for one, other in pairs))
        assert scales == [2.0**14, 2.0**13, 2.0**13, 2.0**13]
        assert moved == [False, False, True, True]
        assert int(trainer.loss_scale.skipped_steps) == 2
        assert [int(o.iterations) for o in trainer.optimizers] == [2, 2, 0]

    def test_an_overflow_without_scaling_is_reported(self):
        network = make_network(Overflowing)
        network.limit = 0.0
        trainer = make_trainer(network)
        network.scale = trainer.loss_scale.value
        losses = [trainer.step(0, toy.draw_batch(toy.ONE)) for _ in range(16)]
        assert np.isfinite(losses[:15]).all()
        assert np.isnan(losses[15])

    def test_is_saved_in_the_checkpoint(self, tmp_path):
        spec = ModelSpec(
            plan=toy.PLAN, pools=(1, 0, 1), base_channels=2, adapter="none"
        )
        values = []
        for seed in (0, 1):
            keras.utils.set_random_seed(seed)
            trainer = make_trainer(build_network(spec, dtype="mixed_float16"))
            saved = Checkpoints(
                tmp_path, spec, trainer.network, trainer.variables_by_path(), keep=1
            )
            if seed == 0:
                trainer.loss_scale.value.assign(512.0)
                trainer.loss_scale.finite_steps.assign(7)
                saved.save(RunState(1))
            else:
                saved.restore()
            scale = trainer.loss_scale
            values.append((float(scale.value), int(scale.finite_steps)))
        assert values == [(512.0, 7)] * 2
        # The saved model can be loaded in any precision.
        for precision in ("float32", *PRECISIONS):
            network = load_network(tmp_path, precision=precision)[1]
            assert network.dtype_policy.name == precision
            toy.assert_identical(
                toy.values_of(network.variables),
                toy.values_of(trainer.network.variables),
            )
