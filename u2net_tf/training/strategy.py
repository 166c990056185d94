"""The distribution strategy of a run, and whether its steps are compiled whole.

Made before anything else of TensorFlow touches its devices: a strategy of several
machines can only be made first.
"""

from __future__ import annotations

import functools

import tensorflow as tf
from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.wording import quantity


@functools.cache
def make_strategy(distribution: str) -> tf.distribute.Strategy:
    """Returns the strategy of `distribution`: "auto", "none" or "mirrored".

    Made once per process: two strategies would number their collective operations
    alike.
    """
    if distribution == "mirrored" or (
        distribution == "auto" and len(tf.config.list_logical_devices("GPU")) > 1
    ):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def gpu_of(strategy: tf.distribute.Strategy) -> str | None:
    """Returns the GPU that a strategy of one replica computes on, or None."""
    gpus = tf.config.list_logical_devices("GPU")
    return gpus[0].name if gpus and strategy.num_replicas_in_sync == 1 else None


def compiles_steps(jit_compile: str, strategy: tf.distribute.Strategy) -> bool:
    """Whether XLA compiles a step as one module.

    Args:
      jit_compile: "auto", "true" or "false".
      strategy: the run's.

    Raises:
      InputError: if it is to and there are several replicas: XLA compiles a module for
        one device, and cannot access the variables on another one.
    """
    num_replicas = strategy.num_replicas_in_sync
    if jit_compile == "true" and num_replicas > 1:
        raise InputError(
            "`jit_compile`",
            expected="auto or false where a step runs on several devices",
            received=f"true, with {num_replicas} devices",
            hint="`distribution`=none trains on one device",
        )
    if jit_compile == "auto":
        if num_replicas > 1 and tf.config.list_logical_devices("GPU"):
            logging.info(
                "XLA compiles a step as one module on a single device only: here, on "
                "%s, operations are executed one by one",
                quantity(num_replicas, "device"),
            )
        return gpu_of(strategy) is not None
    return jit_compile == "true"
