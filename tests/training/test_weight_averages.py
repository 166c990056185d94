"""Moving averages of the weights: when they change, and where they are used."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.errors import InputError
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.loading import load_network
from u2net_tf.models.run_state import RunState
from u2net_tf.training import loop
from u2net_tf.training.weight_averages import WeightAverages

DECAY = 0.5


def make_trainer(decay=DECAY, **options):
    return toy.make_trainer(weight_ema_decay=decay, **options)[1]


def step(trainer, domain, seed=0):
    return trainer.step(domain, toy.draw_batch(toy.PLAN.domains[domain], seed))


def averages_of(optimizer):
    return [average.numpy() for _, average in optimizer.averages()]


def ema(values, decay):
    """The averages after each step, by the formula."""
    average, found = 0.0, []
    for taken, value in enumerate(values):
        weight = min(decay, taken / (taken + 9))
        average = weight * average + (1 - weight) * value
        found.append(average)
    return found


class TestSteps:
    def test_domains_and_shared_variables_cover_the_same_time(self):
        """The shared ones with the root of the decay, as each domain's steps count."""
        trainer = make_trainer(decay=0.04)
        domain, shared = trainer.domain_optimizers[1], trainer.shared_optimizer
        values = {0.04: [], 0.2: []}
        for number in range(8):
            step(trainer, number % 2, seed=number)
            values[0.2].append(trainer.network.shared_variables[0].numpy())
            if number % 2:
                values[0.04].append(trainer.network.domain_variables(1)[0].numpy())
        for optimizer, decay in ((domain, 0.04), (shared, 0.2)):
            expected = ema(values[decay], decay)[-1]
            np.testing.assert_allclose(averages_of(optimizer)[0], expected, rtol=1e-5)

    def test_of_other_domains_stay(self):
        trainer = make_trainer()
        step(trainer, 0)
        step(trainer, 1)
        before = averages_of(trainer.domain_optimizers[0])
        step(trainer, 1)
        toy.assert_identical(averages_of(trainer.domain_optimizers[0]), before)

    def test_training_is_the_same(self):
        """The averages do not change what is trained."""
        trainers = [make_trainer(), make_trainer(decay=0.0)]
        losses = [[step(each, n % 2, seed=n) for n in range(4)] for each in trainers]
        assert losses[0] == losses[1]
        values = [toy.values_of(each.trained_variables) for each in trainers]
        toy.assert_identical(*values)

    def test_skipped_steps_do_not_change_them(self):
        trainer = make_trainer(dtype="mixed_float16")
        step(trainer, 0)
        trainer.loss_scale.value.assign(2.0**120)
        before = averages_of(trainer.shared_optimizer)
        step(trainer, 0)
        assert trainer.skipped_steps() == 1
        toy.assert_identical(averages_of(trainer.shared_optimizer), before)


class TestStart:
    def test_values_before_the_first_step(self):
        trainer = make_trainer()
        trainer.averages.start()
        for variable, average in trainer.shared_optimizer.averages():
            np.testing.assert_array_equal(variable.numpy(), average.numpy())

    def test_only_what_no_step_has_changed(self):
        trainer = make_trainer()
        for number in range(3):
            step(trainer, 0, seed=number)
        before = averages_of(trainer.domain_optimizers[0])
        trainer.averages.start()
        toy.assert_identical(averages_of(trainer.domain_optimizers[0]), before)
        expected = toy.values_of(trainer.network.domain_variables(1))
        toy.assert_identical(averages_of(trainer.domain_optimizers[1]), expected)


class TestInUse:
    def test_replace_the_variables_until_the_end(self):
        trainer = make_trainer()
        for number in range(3):
            step(trainer, number % 2, seed=number)
        variables = [v for v, _ in trainer.shared_optimizer.averages()]
        before = toy.values_of(variables)
        averages = averages_of(trainer.shared_optimizer)
        assert any((a != b).any() for a, b in zip(averages, before, strict=True))
        with trainer.averages.in_use():
            toy.assert_identical(toy.values_of(variables), averages)
        toy.assert_identical(toy.values_of(variables), before)

    def test_are_replaced_after_an_error(self):
        """Such as that of a validation that is stopped."""
        trainer = make_trainer()
        step(trainer, 0)
        step(trainer, 0, seed=1)
        before = toy.values_of(trainer.trained_variables)

        def fail():
            with trainer.averages.in_use():
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        toy.assert_identical(toy.values_of(trainer.trained_variables), before)

    def test_without_averages(self):
        trainer = make_trainer(decay=0.0)
        before = toy.values_of(trainer.trained_variables)
        trainer.averages.start()
        with trainer.averages.in_use():
            toy.assert_identical(toy.values_of(trainer.trained_variables), before)
        assert not WeightAverages(trainer.optimizers).by_path({})


@pytest.mark.usefixtures("toy_network", "shared_input", "eager_steps")
class TestRuns:
    @pytest.fixture
    def run(self, train, tmp_path):
        """Trains four steps, two of each domain."""

        def run_once(name, **settings):
            settings = {"steps_per_epoch": 4, "weight_ema_decay": DECAY} | settings
            return train(tmp_path / name, **settings)

        return run_once

    def test_are_the_weights_of_the_model(self, run):
        trainer = run("a")._trainer
        network = load_network(run("a").model_dir)[1]
        for optimizer in trainer.optimizers:
            assert optimizer.averages()
        saved = network.variables_by_path()
        names = {id(v): p for p, v in trainer.network.variables_by_path().items()}
        for path, average in trainer.averages.by_path(names).items():
            np.testing.assert_array_equal(saved[path].numpy(), average.numpy())
        changed = [
            path
            for path, variable in trainer.network.variables_by_path().items()
            if (saved[path].numpy() != variable.numpy()).any()
        ]
        assert set(changed) == set(saved)

    def test_a_domain_without_steps_keeps_its_weights(self, run):
        """Not 0, the value of averages before the first step."""
        trained = run("a", steps_per_epoch=1)
        network = load_network(trained.model_dir)[1]
        expected = toy.values_of(trained._trainer.network.domain_variables(1))
        toy.assert_identical(toy.values_of(network.domain_variables(1)), expected)

    def test_a_resumed_run_is_bit_identical(self, run):
        run("a", max_epochs=2)
        run("b")
        run("b", max_epochs=2)
        files = [run(name, max_epochs=2).model_dir / "checkpoints" for name in "ab"]
        readers = [tf.train.load_checkpoint(str(each / "step-8")) for each in files]
        keys = [set(reader.get_variable_to_shape_map()) for reader in readers]
        assert keys[0] == keys[1]
        assert any("/weight/" in key for key in keys[0])
        for key in keys[0] - {"state", "spec"}:
            values = [reader.get_tensor(key) for reader in readers]
            np.testing.assert_array_equal(*values, err_msg=key)

    def test_are_validated(self, run, monkeypatch):
        seen = []

        def validate(predictor, shards, *, num_cases):
            network = predictor.backend.network
            seen.append(toy.values_of(network.shared_variables))
            return {}

        monkeypatch.setattr(loop, "validate", validate)
        trainer = run("a", validate_every_epochs=1)._trainer
        toy.assert_identical(seen[0], averages_of(trainer.shared_optimizer))

    @pytest.mark.parametrize("decays", [(0.0, 0.5), (0.5, 0.0), (0.5, 0.9)])
    def test_the_decay_stays_the_same(self, run, decays):
        run("a", weight_ema_decay=decays[0])
        words = f"expected weight_ema_decay {decays[1]}. Received: {decays[0]}"
        with pytest.raises(InputError, match=words):
            run("a", weight_ema_decay=decays[1], max_epochs=2)


def test_a_run_of_an_earlier_version_has_none(tmp_path):
    """It did not record the decay."""
    spec, trainer = toy.make_trainer()

    def open_run(**invariants):
        variables = trainer.variables_by_path()
        return Checkpoints(
            tmp_path, spec, trainer.network, variables, keep=1, invariants=invariants
        )

    open_run().save(RunState(step=1))
    assert open_run(weight_ema_decay=0.0).restore().step == 1
    words = r"expected weight_ema_decay 0\.5\. Received: 0\.0"
    with pytest.raises(InputError, match=words):
        open_run(weight_ema_decay=0.5).restore()
