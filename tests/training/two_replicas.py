"""MirroredStrategy on two logical CPU devices.

    python tests/training/two_replicas.py round_robin OUT_DIR MODE…
    python tests/training/two_replicas.py run WHAT DATA_DIR WORK_DIR
    python tests/training/two_replicas.py half

Started by `test_isolation.py` and `test_trainer.py`, by way of `run_two_replicas`.
"""

import dataclasses
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[up]) for up in (0, 1, 2)]

import numpy as np  # noqa: E402
import round_robin  # noqa: E402
import tensorflow as tf  # noqa: E402
import toy  # noqa: E402

from u2net_tf.input.pipeline import InputSettings  # noqa: E402
from u2net_tf.models.checkpoints import load_network, save_model  # noqa: E402
from u2net_tf.models.model_spec import ModelSpec, build_network  # noqa: E402
from u2net_tf.plan_files import load_plan  # noqa: E402
from u2net_tf.training import adaptation, start  # noqa: E402
from u2net_tf.training.loop import RunSettings  # noqa: E402
from u2net_tf.training.schedule import PlateauRule  # noqa: E402
from u2net_tf.training.trainer import Trainer  # noqa: E402

DEVICES = ("CPU:0", "CPU:1")


def train_round_robin(out_dir, *modes):
    """Rounds in these modes; writes the losses and what the replicas end with."""
    strategy = start.make_strategy("mirrored")
    for mode in modes:
        trainer = round_robin.make_trainer(mode, strategy=strategy)
        losses = round_robin.train(trainer)
        values = round_robin.everything(trainer)
        np.savez(pathlib.Path(out_dir) / f"{mode}.npz", losses, *values)


def run(what, data_dir, work):
    """A run, joint, resumed or of independent networks, or one that adds a domain."""
    work = pathlib.Path(work)
    settings = RunSettings(str(work / what), 4, max_epochs=1, eval_every=1)
    common = {
        "inputs": InputSettings(data_dir=data_dir),
        "optimizer": {"weight_decay": 1e-5},
        "rule": PlateauRule(learning_rate=0.01),
        "computing": {"dtype": "float32"},
        "distribution": "mirrored",
        "flags_text": "",
    }
    network = {"adapter": "separable", "base_channels": 4, "second_up_conv": None}
    shape = {"domains": [], "network": network, "pools": (1, 1, 1)}
    if what == "adapted":
        adapt(data_dir, work, settings, common)
        return
    start.build_network = toy.build_toy_network
    if what == "joint":
        trained = start.train(settings=settings, **shape, **common)
        assert trained.step == 4
        assert trained._trainer.strategy.num_replicas_in_sync == 2
    elif what == "resumed":
        run("joint", data_dir, work)
        longer = dataclasses.replace(
            settings, model_dir=str(work / "joint"), max_epochs=2
        )
        assert start.train(settings=longer, **shape, **common).step == 8
    else:
        start.train_independently(settings=settings, **shape, **common)


def adapt(data_dir, work, settings, common):
    """Adds a domain to a model that was never trained."""
    plan = load_plan(pathlib.Path(data_dir) / "plan.json").select([toy.ONE.name])
    spec = ModelSpec(plan, pools=(1, 0, 1), base_channels=2, adapter="none")
    save_model(work / "parent", spec, build_network(spec))
    # It says itself if the old domain is another afterwards.
    run = adaptation.adapt(
        parent_dir=work / "parent",
        domain=toy.TWO.name,
        init="mean",
        settings=dataclasses.replace(settings, steps_per_epoch=2, eval_every=0),
        **common,
    )
    assert run._trainer.strategy.num_replicas_in_sync == 2
    own = load_network(settings.model_dir)[1].domain_variables(1)
    assert all(np.isfinite(variable.numpy()).all() for variable in own)


class OneOverflows(toy.ToyNetwork):
    """In the first step the gradient of the second replica is infinite."""

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
    """A step of which one replica overflows is left out by both."""
    strategy = start.make_strategy("mirrored")
    with strategy.scope():
        network = OneOverflows([1], [2], dtype="mixed_float16")
        network.build()
    trainer = Trainer(network, learning_rate=0.01, weight_decay=0.1, strategy=strategy)
    network.scale = trainer.loss_scale.value
    images = toy.draw_batch(toy.ONE)
    batch = {
        name: strategy.experimental_distribute_values_from_function(
            lambda context, name=name: images[name][
                context.replica_id_in_sync_group :: 2
            ]
        )
        for name in ("image", "labels")
    }
    moved = []
    for _ in range(3):
        before = round_robin.everything(trainer)
        assert np.isfinite(trainer.step(0, batch))
        after = round_robin.everything(trainer)
        moved.append(
            any(
                (a != b).any()
                for x, y in zip(before, after, strict=True)
                for a, b in zip(x, y, strict=True)
            )
        )
        # Both replicas hold the same.
        for copies in after:
            toy.assert_identical(copies[:1], copies[1:2] or copies[:1])
    assert moved == [False, True, True], moved
    assert [int(o.iterations.numpy()) for o in trainer.optimizers] == [2, 2]


def main():
    devices = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * len(DEVICES)
    tf.config.set_logical_device_configuration(devices[0], logical)
    original = tf.distribute.MirroredStrategy
    tf.distribute.MirroredStrategy = lambda: original(list(DEVICES))
    parts = {
        "round_robin": train_round_robin,
        "run": run,
        "half": train_in_half_precision,
    }
    parts[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
