"""MirroredStrategy on two logical CPU devices.

    python tests/training/two_replicas.py round_robin OUT_DIR
    python tests/training/two_replicas.py run DATA_DIR MODEL_DIR

Started by `test_isolation.py` and `test_trainer.py`.
"""

import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parents[up]) for up in (1, 2)]

import numpy as np  # noqa: E402
import round_robin  # noqa: E402
import tensorflow as tf  # noqa: E402
import toy  # noqa: E402

from u2net_tf.input.pipeline import InputSettings  # noqa: E402
from u2net_tf.training import start  # noqa: E402
from u2net_tf.training.loop import RunSettings  # noqa: E402
from u2net_tf.training.schedule import PlateauRule  # noqa: E402


def train_round_robin(strategy, out_dir):
    """Rounds in every mode; writes the losses and what the replicas end with."""
    for mode in round_robin.MODES:
        trainer = round_robin.make_trainer(mode, strategy=strategy)
        losses = round_robin.train(trainer)
        values = round_robin.everything(trainer)
        np.savez(pathlib.Path(out_dir) / f"{mode}.npz", losses, *values)


def run(strategy, data_dir, model_dir):
    """A whole run: batches are split between the replicas."""
    start.build_network = toy.build_toy_network
    start.make_strategy = lambda distribution: strategy
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
        precision="float32",
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
    {"round_robin": train_round_robin, "run": run}[sys.argv[1]](strategy, *sys.argv[2:])


if __name__ == "__main__":
    main()
