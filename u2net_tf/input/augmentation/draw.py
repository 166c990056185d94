"""Random numbers from which all parameters are made, functions of a seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.config.augmentation import Range


def draw_chance(
    probability: float | Sequence[float], seed: tf.Tensor, *, count: int
) -> tf.Tensor:
    """(count,) bool, each true with its probability.

    Args:
      probability: of all, or of each.
      seed: (2,) integers.
      count: how many.
    """
    share = tf.random.stateless_uniform([count], seed)
    return share < tf.constant(probability, tf.float32)


def draw_uniform(values: Range, seed: tf.Tensor, *, count: int) -> tf.Tensor:
    """(count,) float32 from (lowest, highest).

    Args:
      values: lowest and highest.
      seed: (2,) integers.
      count: how many.
    """
    share = tf.random.stateless_uniform([count], seed)
    return values[0] + (values[1] - values[0]) * share
