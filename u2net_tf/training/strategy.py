"""The distribution strategy of a run.

Made before anything else of TensorFlow touches its devices: a strategy of several
machines can only be made first.
"""

from __future__ import annotations

import functools

import tensorflow as tf


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
