"""Draws the random numbers of all parameters, as functions of a seed."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.config.augmentation import Range


def draw_chance(
    probability: float | Sequence[float], seed: tf.Tensor, *, count: int
) -> tf.Tensor:
    """Draws (count,) bool, each true with its probability.

    Args:
      probability: one for all, or one for each.
      seed: (2,) integers.
      count: number of values.
    """
    uniform = tf.random.stateless_uniform([count], seed)
    return uniform < tf.constant(probability, tf.float32)


def draw_uniform(values: Range, seed: tf.Tensor, *, count: int) -> tf.Tensor:
    """Draws (count,) float32 uniformly from (lowest, highest).

    Args:
      values: lowest and highest.
      seed: (2,) integers.
      count: number of values.
    """
    uniform = tf.random.stateless_uniform([count], seed)
    return values[0] + (values[1] - values[0]) * uniform
