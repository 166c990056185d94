"""MirroredStrategy on two logical CPU devices.

    python tests/training/two_replicas.py round_robin OUT_DIR MODE…
    python tests/training/two_replicas.py modules OUT_DIR MODE…
    python tests/training/two_replicas.py module ADAPTER PRECISION [added]
    python tests/training/two_replicas.py run WHAT DATA_DIR WORK_DIR
    python tests/training/two_replicas.py half

Started through `run_two_replicas`.
"""

import os
import pathlib
import signal
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[up]) for up in (0, 1, 2)]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import round_robin  # noqa: E402
import tensorflow as tf  # noqa: E402
import toy  # noqa: E402

from u2net_tf.config.training import AdaptConfig, TrainConfig  # noqa: E402
from u2net_tf.errors import StoppedEarlyError  # noqa: E402
from u2net_tf.models.build import build_network  # noqa: E402
from u2net_tf.models.loading import load_network, save_model  # noqa: E402
from u2net_tf.models.spec import ModelSpec  # noqa: E402
from u2net_tf.plan.plan_file import load_plan  # noqa: E402
from u2net_tf.stop_signals import DeferredSignals  # noqa: E402
from u2net_tf.training import adaptation, runs  # noqa: E402
from u2net_tf.training.differentiation import Differentiation  # noqa: E402
from u2net_tf.training.step import Trainer  # noqa: E402
from u2net_tf.training.stop_requests import StopRequests  # noqa: E402
from u2net_tf.training.strategy import make_strategy  # noqa: E402

DEVICES = ("CPU:0", "CPU:1")


def train_modules(out_dir, *modes):
    """Like `train_round_robin`, with a module for each replica."""
    original, traced = Differentiation._compute, []

    def compute(self, domain, *arguments, **options):
        # Not only its id, which a later object could have.
        traced.append((self, domain))
        assert options["implementation"] == "xla_module"
        return original(self, domain, *arguments, **options)

    Differentiation._compute = compute
    train_round_robin(out_dir, *modes, jit_compile=True)
    # Each domain of each network, once for both replicas.
    different = {(id(differentiation), domain) for differentiation, domain in traced}
    assert len(traced) == len(different) == len(toy.PLAN.domains) * len(modes)


def compare_module(adapter, precision, *added):
    """Compares steps of modules and of single operations in the second domain.

    With another argument, only the variables of this domain are trained.
    """
    strategy = make_strategy("mirrored")
    batch = split(strategy, toy.draw_batch(toy.TWO))
    options = {"domains": [1], "train_shared": False} if added else {}
    spec = ModelSpec(toy.PLAN, pools=(1, 0, 1), base_channels=2, adapter=adapter)
    losses = []
    for jit_compile in (True, False):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            network = build_network(spec, dtype=precision)
        trainer = Trainer(
            network,
            learning_rate=0.01,
            weight_decay=0.0,
            strategy=strategy,
            jit_compile=jit_compile,
            **options,
        )
        losses.append([trainer.step(1, batch) for _ in range(3)])
    tolerance = 1e-4 if precision == "float32" else 0.05
    np.testing.assert_allclose(*losses, rtol=tolerance)
    assert losses[0][2] < losses[0][0]


def split(strategy, batch):
    """Gives each of two replicas half of a batch."""
    return {
        name: strategy.experimental_distribute_values_from_function(
            lambda context, name=name: tf.constant(
                batch[name][context.replica_id_in_sync_group :: 2]
            )
        )
        for name in ("image", "labels")
    }


def train_round_robin(out_dir, *modes, **options):
    """Trains rounds in these modes; saves the losses and the final values."""
    strategy = make_strategy("mirrored")
    for mode in modes:
        trainer = round_robin.make_trainer(mode, strategy=strategy, **options)
        losses = round_robin.train(trainer)
        values = round_robin.values_of_trainer(trainer)
        np.savez(pathlib.Path(out_dir) / f"{mode}.npz", losses, *values)


def run(what, data_dir, work, distribution="mirrored", is_signalled=True):
    """Trains jointly, with an interruption or independently, or adds a domain."""
    work = pathlib.Path(work)
    values = {
        "data_dir": data_dir,
        "model_dir": str(work / what),
        "steps_per_epoch": 4,
        "max_epochs": 1,
        "validate_every_epochs": 1,
        "learning_rate": 0.01,
        "distribution": distribution,
        "weight_ema_decay": 0.5,
    }
    if what == "adapted":
        adapt(work, values)
        return
    config = TrainConfig.from_flat({**values, "base_channels": 4, "pools": (1, 1, 1)})
    runs.build_network = toy.build_toy_network
    if what == "joint":
        trained = runs.train(config)
        assert trained.step == 4
        assert trained._trainer.strategy.num_replicas_in_sync == 2
    elif what == "stopped":
        run_stopped(config, work, is_signalled)
    elif what == "resumed":
        run("joint", data_dir, work, distribution)
        longer = config.with_changes(model_dir=str(work / "joint"), max_epochs=2)
        assert runs.train(longer).step == 8
    else:
        runs.train_independently(config)


def run_stopped(config, work, is_signalled):
    """Compares a run that a signal stops at the second step with one without."""
    original, taken = Trainer.step, []

    def step(self, domain, batch):
        taken.append(domain)
        if len(taken) == 2 and is_signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, domain, batch)

    Trainer.step = step
    with pytest.raises(StoppedEarlyError, match=r"step 2 \(step 2 of epoch 1\) is sa"):
        runs.train(config, stop=StopRequests(signals=DeferredSignals()))
    resumed = runs.train(config)
    assert resumed._trainer.strategy.num_replicas_in_sync == 2
    uninterrupted = runs.train(
        config.with_changes(model_dir=str(work / "uninterrupted"))
    )
    for one, other in zip(
        round_robin.values_of_trainer(resumed._trainer),
        round_robin.values_of_trainer(uninterrupted._trainer),
        strict=True,
    ):
        toy.assert_identical(one, other)


def adapt(work, values):
    """Adds a domain to a model that was never trained."""
    plan = load_plan(pathlib.Path(values["data_dir"]) / "plan.json")
    spec = ModelSpec(
        plan.select([toy.ONE.name]), pools=(1, 0, 1), base_channels=2, adapter="none"
    )
    if not (work / "parent").exists():
        save_model(work / "parent", spec, build_network(spec))
    values |= {"steps_per_epoch": 2, "validate_every_epochs": 0}
    # Adapting raises an error itself if the old domain has changed.
    run, _ = adaptation.adapt(
        AdaptConfig.from_flat(
            {**values, "from_": str(work / "parent"), "domain": toy.TWO.name}
        )
    )
    assert run._trainer.strategy.num_replicas_in_sync == 2
    own = load_network(values["model_dir"])[1].domain_variables(1)
    assert all(np.isfinite(variable.numpy()).all() for variable in own)


class OneOverflows(toy.ToyNetwork):
    """The toy network; in the first step, the second replica's gradient is infinite."""

    scale = None

    def call(self, inputs, *, domain, training=None):
        logits = super().call(inputs, domain=domain, training=training)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group

        @tf.custom_gradient
        def passed(value):
            def gradient(upstream):
                bad = tf.logical_and(self.scale > 2.0**14, tf.equal(replica, 1))
                return tf.where(bad, tf.constant(np.inf, value.dtype), upstream)

            return tf.identity(value), gradient

        return passed(logits)


def train_in_half_precision():
    """Checks that a step that overflows on one replica is skipped by both."""
    strategy = make_strategy("mirrored")
    with strategy.scope():
        network = OneOverflows([1], [2], dtype="mixed_float16")
        network.build()
    trainer = Trainer(
        network,
        learning_rate=0.01,
        weight_decay=0.1,
        weight_ema_decay=0.5,
        strategy=strategy,
    )
    network.scale = trainer.loss_scale.value
    batch = split(strategy, toy.draw_batch(toy.ONE))
    moved = []
    for _ in range(3):
        before = round_robin.values_of_trainer(trainer)
        assert np.isfinite(trainer.step(0, batch))
        after = round_robin.values_of_trainer(trainer)
        moved.append(
            any(
                (a != b).any()
                for x, y in zip(before, after, strict=True)
                for a, b in zip(x, y, strict=True)
            )
        )
        # Both replicas have the same values.
        for copies in after:
            toy.assert_identical(copies[:1], copies[1:2] or copies[:1])
    assert moved == [False, True, True], moved
    (variable, average), *_ = trainer.shared_optimizer.averages()
    with trainer.averages.in_use():
        for copies in round_robin.copies_of(trainer, [variable]):
            toy.assert_identical(copies, [average.numpy()] * 2)
    assert [int(o.iterations.numpy()) for o in trainer.optimizers] == [2, 2]


def main():
    devices = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * len(DEVICES)
    tf.config.set_logical_device_configuration(devices[0], logical)
    original = tf.distribute.MirroredStrategy
    tf.distribute.MirroredStrategy = lambda: original(list(DEVICES))
    parts = {
        "round_robin": train_round_robin,
        "modules": train_modules,
        "module": compare_module,
        "run": run,
        "half": train_in_half_precision,
    }
    parts[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
