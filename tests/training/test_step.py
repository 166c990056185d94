from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.errors import StoppedError
from u2net_tf.losses import region_loss, segmentation_loss
from u2net_tf.plan.domains import Plan
from u2net_tf.training import step as step_module
from u2net_tf.training.domain_losses import DomainLoss


def make_trainer(**options):
    return toy.make_trainer(dtype="float64", **options)[1]


def test_too_little_memory_for_the_optimizers(monkeypatch):
    def build(optimizer, variables):
        # More bytes than the addresses of any machine.
        tf.random.stateless_normal([1 << 60], seed=(1, 2))

    monkeypatch.setattr(step_module.TorchAdam, "build", build)
    words = "expected enough memory for the variables .* Received: OOM .* Close other"
    with pytest.raises(StoppedError, match=words):
        make_trainer()


def step(trainer, domain, seed=0):
    domains = (toy.ONE, toy.TWO, toy.ONE, toy.ONE)
    batch = toy.draw_batch(domains[domain], seed, dtype="float64")
    return trainer.step(domain, batch)


class TorchAdam:
    """PyTorch's Adam with L2 in float64, as documented, for a single variable."""

    def __init__(self, learning_rate, weight_decay):
        # Keras stores the learning rate in float32.
        self.learning_rate = float(np.float32(learning_rate))
        self.weight_decay = weight_decay
        self.step, self.mean, self.square = 0, 0.0, 0.0

    def update(self, value, gradient):
        self.step += 1
        gradient = gradient + self.weight_decay * value
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean = self.mean / (1 - 0.9**self.step)
        square = self.square / (1 - 0.999**self.step)
        return value - self.learning_rate * mean / (np.sqrt(square) + 1e-8)


def assert_steps_equal_pytorch_adam(plan, weight_decay, num_steps):
    """Trains the domains in turn; compares every step's variables with the formula."""
    trainer = make_trainer(plan=plan, learning_rate=0.01, weight_decay=weight_decay)
    network = trainer.network
    variables = network.trainable_variables
    values = [v.numpy() for v in variables]
    adams = [TorchAdam(0.01, weight_decay) for _ in variables]
    for number in range(num_steps):
        domain = number % len(plan.domains)
        batch = toy.draw_batch(plan.domains[domain], number, dtype="float64")
        with tf.GradientTape() as tape:
            logits = network(batch["image"], domain=domain)
            loss = segmentation_loss(batch["labels"], logits)
        gradients = tape.gradient(loss, [v.value for v in variables])
        assert trainer.step(domain, batch) == pytest.approx(float(loss), abs=1e-9)
        for i, gradient in enumerate(gradients):
            if gradient is not None:
                values[i] = adams[i].update(values[i], gradient.numpy())
        for variable, value in zip(variables, values, strict=True):
            np.testing.assert_allclose(variable.numpy(), value, rtol=0, atol=1e-12)


class TestOptimizer:
    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    def test_is_pytorch_s_adam_with_l2_in_the_gradient(self, weight_decay):
        assert_steps_equal_pytorch_adam(toy.PLAN, weight_decay, num_steps=6)

    def test_decay_alone_makes_a_step_of_the_learning_rate(self):
        # In black images, the stem's gradient is 0, and Adam turns whatever decay adds
        # to it into a step of full length. Decoupled decay would subtract 0.1 %.
        trainer = make_trainer(learning_rate=0.01, weight_decay=0.1)
        stem = trainer.network.stems[0]
        before = stem.numpy()
        batch = toy.draw_batch(toy.ONE, dtype="float64")
        trainer.step(0, {**batch, "image": tf.zeros_like(batch["image"])})
        np.testing.assert_allclose(
            stem.numpy(), before - 0.01 * np.sign(before), rtol=1e-6
        )

    def test_without_decay_nothing_changes(self):
        trainer = make_trainer(learning_rate=0.01, weight_decay=0.0)
        before = trainer.network.stems[0].numpy()
        batch = toy.draw_batch(toy.ONE, dtype="float64")
        trainer.step(0, {**batch, "image": tf.zeros_like(batch["image"])})
        np.testing.assert_array_equal(trainer.network.stems[0].numpy(), before)

    def test_small_gradients_make_steps_as_large_as_large_ones(self):
        # ε is added to the root of the corrected second moment, which is far larger.
        optimizer = toy.make_trainer(weight_decay=0.0)[1].shared_optimizer
        (variable,) = optimizer._trainable_variables
        before = variable.numpy()
        optimizer.apply([tf.fill(variable.shape, 1e-6)], [variable])
        np.testing.assert_allclose(before - variable.numpy(), 0.01 / 1.01, rtol=1e-4)


class TestDomainsOfOneShape:
    """They share one compiled step, although each has its own variables."""

    PLAN = Plan(
        (toy.ONE, toy.TWO, *(replace(toy.ONE, name=f"Task9{n}_One") for n in (3, 4)))
    )

    def train(self, **options):
        """Trains four domains in turn; returns the trainer and the losses."""
        trainer = make_trainer(plan=self.PLAN, **options)
        return trainer, [
            trainer.step(
                number % 4,
                toy.draw_batch(self.PLAN.domains[number % 4], number, dtype="float64"),
            )
            for number in range(8)
        ]

    def test_steps_are_pytorch_s_adam_for_every_domain(self):
        assert_steps_equal_pytorch_adam(self.PLAN, weight_decay=0.1, num_steps=12)

    def test_the_step_is_traced_once_for_all_of_them(self, monkeypatch):
        traced = []

        class Watching(toy.ToyNetwork):
            def call(self, inputs, *, domain, training=None):
                traced.append(domain)
                return super().call(inputs, domain=domain, training=training)

        monkeypatch.setattr(toy, "ToyNetwork", Watching)
        self.train()
        assert traced == [0, 1]

    def test_a_step_does_not_change_the_others(self):
        trainer, _ = self.train()
        for domain in (0, 2, 3):
            others = [
                variable
                for other in {0, 1, 2, 3} - {domain}
                for variable in (
                    *trainer.network.domain_variables(other),
                    *trainer.domain_optimizers[other].variables,
                )
            ]
            own = trainer.network.domain_variables(domain)
            before, own_before = toy.values_of(others), toy.values_of(own)
            step(trainer, domain)
            toy.assert_identical(toy.values_of(others), before)
            pairs = zip(own_before, toy.values_of(own), strict=True)
            assert all((one != other).any() for one, other in pairs)
            assert int(trainer.domain_optimizers[domain].iterations) == 3

    def test_any_may_be_first_and_sizes_may_vary(self):
        trainer = make_trainer(plan=self.PLAN)
        for size in ((8, 8, 8), (4, 6, 2)):
            batch = toy.draw_batch(toy.ONE, size=size, dtype="float64")
            assert np.isfinite(trainer.step(2, batch))
            assert np.isfinite(trainer.step(0, batch))

    def test_compiled_are_those_with_the_shapes_of_variables_and_batch(self):
        trainer = make_trainer(plan=self.PLAN)
        batch, small, other = (
            toy.draw_batch(domain, size=size, dtype="float64")
            for domain, size in (
                (toy.ONE, (8, 8, 8)),
                (toy.ONE, (4, 6, 2)),
                (toy.TWO, (8, 8, 8)),
            )
        )
        assert not trainer.is_compiled(0, batch)
        trainer.step(0, batch)
        assert trainer.is_compiled(2, batch)
        assert not trainer.is_compiled(2, small)
        assert not trainer.is_compiled(1, other)
        trainer.step(2, small)
        assert trainer.is_compiled(0, small)

    @pytest.mark.parametrize("special", [0, 2])
    def test_those_with_an_ignore_label_have_a_loss_of_their_own(self, special):
        losses = [DomainLoss(2 if index == special else None) for index in range(4)]
        trainer = make_trainer(plan=self.PLAN, domain_losses=losses)
        batch = toy.draw_batch(toy.ONE, dtype="float64")
        half = tf.reshape(tf.range(8), (8, 1, 1)) < 4
        marked = {
            **batch,
            "labels": tf.where(half, tf.cast(2, tf.uint8), batch["labels"]),
        }
        for domain in (0, 2):
            ignore_index = losses[domain].ignore_index
            chosen = batch if ignore_index is None else marked
            logits = trainer.network(batch["image"], domain=domain)
            expected = segmentation_loss(
                chosen["labels"], logits, ignore_index=ignore_index
            )
            assert trainer.step(domain, chosen) == pytest.approx(float(expected))
        # The index of an ignored voxel is that of a class in a domain with more.
        assert not trainer.is_compiled(1, toy.draw_batch(toy.TWO, dtype="float64"))

    @pytest.mark.parametrize("special", [1, 4])
    def test_those_with_regions_have_a_loss_of_their_own(self, special):
        plan = Plan((*self.PLAN.domains, replace(toy.TWO, name="Task95_Two")))
        losses = [
            DomainLoss(None, ((1, 2),), 0.5) if index == special else DomainLoss()
            for index in range(5)
        ]
        trainer = make_trainer(plan=plan, domain_losses=losses)
        batch = toy.draw_batch(toy.TWO, dtype="float64")
        for domain in (1, 4):
            logits = trainer.network(batch["image"], domain=domain)
            expected = segmentation_loss(batch["labels"], logits)
            if domain == special:
                expected += 0.5 * region_loss(batch["labels"], logits, [(1, 2)])
            assert trainer.step(domain, batch) == pytest.approx(float(expected))

    def test_each_has_its_own_learning_rate(self):
        trainer, _ = self.train()
        trainer.domain_optimizers[2].learning_rate.assign(0.0)
        for domain, moves in ((0, True), (2, False), (3, True)):
            before = trainer.network.stems[domain].numpy()
            step(trainer, domain)
            moved = (trainer.network.stems[domain].numpy() != before).any()
            assert moved == moves


class TestLearningRate:
    def test_is_the_size_of_the_first_step(self):
        trainer = make_trainer(learning_rate=0.03)
        before = trainer.network.trunk.numpy()
        step(trainer, 0)
        # Adam's first step is as long as the learning rate.
        np.testing.assert_allclose(
            np.abs(trainer.network.trunk.numpy() - before), 0.03, rtol=1e-4
        )

    def test_is_set_for_every_optimizer(self):
        trainer = make_trainer()
        trainer.set_learning_rate(0.25)
        assert [float(o.learning_rate) for o in trainer.optimizers] == [0.25] * 3

    def test_applies_to_steps_that_are_already_compiled(self):
        trainer = make_trainer()
        step(trainer, 0)
        trainer.set_learning_rate(0.0)
        before = toy.values_of(trainer.network.variables)
        step(trainer, 0)
        toy.assert_identical(toy.values_of(trainer.network.variables), before)


class TestLoss:
    def test_decreases(self):
        trainer = make_trainer(learning_rate=0.05, weight_decay=0.0)
        losses = [step(trainer, 0) for _ in range(20)]
        assert losses[-1] < losses[0] - 0.02

    def test_is_computed_before_the_step(self):
        trainer = make_trainer()
        batch = toy.draw_batch(toy.TWO, dtype="float64")
        logits = trainer.network(batch["image"], domain=1)
        expected = float(segmentation_loss(batch["labels"], logits))
        assert trainer.step(1, batch) == pytest.approx(expected, abs=1e-9)

    def test_is_nan_if_the_gradient_is_not_finite(self):
        trainer = toy.make_trainer()[1]
        batch = toy.draw_batch(toy.ONE)
        # No logit overflows, but the square of the gradient does.
        batch["image"] *= 1e25
        loss = segmentation_loss(
            batch["labels"], trainer.network(batch["image"], domain=0)
        )
        assert np.isfinite(float(loss))
        assert np.isnan(trainer.step(0, batch))

    def test_a_detached_focal_factor_changes_only_the_step(self):
        attached = make_trainer(detach_focal_factor=False)
        detached = make_trainer(detach_focal_factor=True)
        assert step(attached, 0) == step(detached, 0)
        moments = [
            t.shared_optimizer.variables[2].numpy() for t in (attached, detached)
        ]
        assert np.abs(moments[0] - moments[1]).max() > 1e-6

    def test_a_batch_may_have_another_size(self):
        trainer = make_trainer()
        for size in ((8, 8, 8), (4, 6, 2)):
            batch = toy.draw_batch(toy.ONE, size=size, dtype="float64")
            assert np.isfinite(trainer.step(0, batch))

    def test_another_number_of_modalities_is_an_error(self):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            make_trainer().step(0, toy.draw_batch(toy.TWO, dtype="float64"))


class TestTwoReplicas:
    @pytest.mark.parametrize(
        ("what", "folders"),
        [
            ("joint", ["joint"]),
            pytest.param("resumed", ["joint"], marks=pytest.mark.slow),
            pytest.param("stopped", ["stopped"], marks=pytest.mark.slow),
            pytest.param(
                "alone",
                ["alone/Task91_One", "alone/Task92_Two"],
                marks=pytest.mark.slow,
            ),
            pytest.param("adapted", ["adapted"], marks=pytest.mark.slow),
        ],
    )
    @pytest.mark.slow
    def test_complete_runs(self, run_two_replicas, tmp_path, tiny_data, what, folders):
        run_two_replicas("run", what, tiny_data.data_dir, tmp_path)
        for folder in folders:
            assert (tmp_path / folder / "training.csv").is_file()

    def test_a_step_that_overflows_on_one_is_skipped_on_both(self, run_two_replicas):
        run_two_replicas("half")
