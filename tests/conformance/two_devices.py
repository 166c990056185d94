"""Compares rows under MirroredStrategy on two logical CPU devices with one device.

    python tests/conformance/two_devices.py IMPLEMENTATION NAME…

Run by `test_two_devices.py`; prints the name of each row that passes.
"""

import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parents[up]) for up in (0, 1, 2)]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import table  # noqa: E402
import tensorflow as tf  # noqa: E402

from u2net_tf.networks import ops  # noqa: E402

LEARNING_RATE = 0.5


def values_on(strategy, variables):
    """Values of the variables' copies, for each device."""
    copies = [strategy.experimental_local_results(v.value) for v in variables]
    return [[copy.numpy() for copy in device] for device in zip(*copies, strict=True)]


def check(strategy, row, implementation):
    """Takes steps with the same data on both devices and on a single one."""
    alone = table.build(row)
    with strategy.scope():
        mirrored = table.build(row)
        optimizer = keras.optimizers.SGD(LEARNING_RATE)
        optimizer.build(mirrored.trainable_variables)
    for domain in range(row.num_domains):
        inputs = table.draw_inputs(row, domain)
        with ops.use_implementation(implementation):
            expected, gradients = table.differentiate(alone, domain, inputs)
        gradients = gradients[len(inputs) :]

        def replica_step(domain=domain, inputs=inputs):
            # Each replica has a thread, and each thread its own implementation.
            with ops.use_implementation(implementation):
                outputs, gradients = table.differentiate(mirrored, domain, inputs)
            pairs = zip(gradients[len(inputs) :], mirrored.variables, strict=True)
            # The optimizer adds up the replicas' gradients.
            half = [(g / 2, variable) for g, variable in pairs if g is not None]
            optimizer.apply(*zip(*half, strict=True))
            return outputs

        results = strategy.experimental_local_results(strategy.run(replica_step))
        copies = values_on(strategy, mirrored.variables)
        assert len(results) == len(copies) == 2
        for outputs in results:
            np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-10)
        for variable, gradient, *values in zip(
            alone.variables, gradients, *copies, strict=True
        ):
            change, tolerance = 0.0, 0.0
            if gradient is not None:
                change = -LEARNING_RATE * gradient
                tolerance = 1e-9 * (1 + np.linalg.norm(gradient))
            for value in values:
                np.testing.assert_allclose(
                    value,
                    variable.numpy() + change,
                    rtol=0,
                    atol=tolerance,
                    err_msg=variable.path,
                )
            # The next domain starts where this one ended.
            variable.assign(values[0])


def main():
    devices = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(devices[0], logical)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    implementation, *names = sys.argv[1:]
    for name in names:
        check(strategy, table.TABLE[name], implementation)
        print(name)


if __name__ == "__main__":
    main()
