"""Checks that a run makes its strategy before TensorFlow's devices are touched.

    python tests/training/first_touch.py COMMAND --FLAG=VALUE…

Started by `test_strategy.py`, in a process that has not touched any device yet.
"""

import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[2])]

import tensorflow as tf  # noqa: E402

from u2net_tf import adapt, command, train  # noqa: E402
from u2net_tf.config.training import AdaptConfig, TrainConfig  # noqa: E402
from u2net_tf.training import adaptation, runs  # noqa: E402

COMMANDS = {"train": (train, TrainConfig), "adapt": (adapt, AdaptConfig)}


def make_strategy(distribution):
    """Fails if devices were touched, as they can only be configured before that."""
    devices = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(devices[0], logical)
    print(f"first: {distribution}")
    sys.exit(0)


def main():
    runs.make_strategy = adaptation.make_strategy = make_strategy
    module, config = COMMANDS[sys.argv.pop(1)]
    command.start(module.main, config)


if __name__ == "__main__":
    main()
