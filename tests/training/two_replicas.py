"""MirroredStrategy on two logical CPU devices against one device, and a whole run.

    python tests/training/two_replicas.py DATA_DIR MODEL_DIR

Started by `test_trainer.py`; prints a word for each part that went well.
"""

import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parents[up]) for up in (1, 2)]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import toy  # noqa: E402

from u2net_tf.input.pipeline import InputSettings  # noqa: E402
from u2net_tf.models.model_spec import ModelSpec  # noqa: E402
from u2net_tf.networks.units import SeparableUnit  # noqa: E402
from u2net_tf.training import start  # noqa: E402
from u2net_tf.training.loop import RunSettings  # noqa: E402
from u2net_tf.training.schedule import PlateauRule  # noqa: E402
from u2net_tf.training.trainer import Trainer  # noqa: E402

OPTIONS = {"learning_rate": 0.01, "weight_decay": 0.1}
SPEC = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1), base_channels=3)


class OneUnit(toy.ToyNetwork):
    """The toy network with one of the real network's units behind its stem."""

    def build(self, input_shape=None):
        self.unit = SeparableUnit(self.width, self.width, self.num_domains)
        self.unit.build()
        super().build()

    def call(self, inputs, *, domain, training=None):
        hidden = tf.tensordot(inputs, self.stems[domain].value, 1)
        hidden = self.unit(hidden, domain=domain)
        return tf.tensordot(hidden, self.heads[domain].value, 1)

    def domain_variables(self, domain):
        own = super().domain_variables(domain)
        return [*own, *self.unit.domain_variables(domain)]

    @property
    def shared_variables(self):
        own = [*self.domain_variables(0), *self.domain_variables(1), self.trunk]
        ids = {id(variable) for variable in own}
        return [v for v in self.trainable_variables if id(v) not in ids]


def build_one_unit(spec):
    domains = spec.plan.domains
    network = OneUnit(
        [domain.num_modalities for domain in domains],
        [domain.num_classes for domain in domains],
        width=spec.base_channels,
    )
    network.build()
    return network


def compare(strategy, build, domains, tolerance):
    """Trains on one batch, and on two replicas that see this batch each."""
    keras.utils.set_random_seed(0)
    alone = Trainer(build(SPEC), **OPTIONS)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network = build(SPEC)
    mirrored = Trainer(network, **OPTIONS, strategy=strategy)
    for number, domain in enumerate(domains):
        batch = toy.draw_batch(toy.PLAN.domains[domain], seed=number)
        del batch["case"]
        both = {
            key: strategy.experimental_distribute_values_from_function(
                lambda context, key=key, batch=batch: batch[key]
            )
            for key in batch
        }
        np.testing.assert_allclose(
            mirrored.step(domain, both), alone.step(domain, batch), rtol=1e-6
        )
    pairs = zip(network.variables, alone.network.variables, strict=True)
    for variable, expected in pairs:
        replicas = strategy.experimental_local_results(variable.value)
        assert len(replicas) == 2
        for replica in replicas:
            np.testing.assert_allclose(
                replica.numpy(), expected.numpy(), atol=tolerance, rtol=0
            )
    counts = [int(optimizer.iterations.numpy()) for optimizer in mirrored.optimizers]
    assert counts == [len(domains), *(domains.count(d) for d in (0, 1))], counts


def run(strategy, data_dir, model_dir):
    """A whole run: batches are split between the replicas."""
    start.build_network = toy.build_toy_network
    start._strategy = lambda distribution: strategy
    result = start.train(
        domains=[],
        network={"adapter": "separable", "base_channels": 4, "second_up_conv": None},
        pools=(1, 1, 1),
        inputs=InputSettings(data_dir=data_dir),
        optimizer={"weight_decay": 1e-5},
        rule=PlateauRule(learning_rate=0.01),
        settings=RunSettings(
            model_dir=model_dir, steps_per_epoch=4, max_epochs=2, eval_every=2
        ),
        distribution="mirrored",
        flags_text="",
    )
    assert result.step == 8


def main():
    devices = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(devices[0], logical)
    # One for all parts: two of them would count their collective operations alike.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    words = []
    compare(strategy, toy.build_toy_network, [0, 1, 0, 1, 1], 1e-6)
    words.append("toy")
    compare(strategy, build_one_unit, [1, 0, 1], 1e-5)
    words.append("unit")
    run(strategy, sys.argv[1], sys.argv[2])
    words.append("run")
    print(*words)


if __name__ == "__main__":
    main()
