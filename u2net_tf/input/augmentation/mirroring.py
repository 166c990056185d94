"""Mirroring of patches: drawn, then applied to arrays or to coordinates.

A patch without other spatial transforms is mirrored as an array. Otherwise, mirroring
is part of the coordinates at which the volume is interpolated.
"""

from __future__ import annotations

from collections.abc import Collection

import tensorflow as tf

from u2net_tf.input.augmentation.draw import draw_chance
from u2net_tf.plan.domains import AXES


def draw_mirroring(
    mirror_axes: Collection[str], probability: float, seed: tf.Tensor
) -> tf.Tensor:
    """Draws along which of the axes z, y, x to mirror. (3,) bool.

    Args:
      mirror_axes: the axes along which mirroring is allowed.
      probability: probability for each of them.
      seed: (2,) integers.
    """
    allowed = tf.constant([axis in mirror_axes for axis in AXES])
    return allowed & draw_chance(probability, seed, count=3)


def apply_mirroring(array: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Mirrors (z, y, x) or (z, y, x, C) along the axes where `mirrored` is true."""
    axes = tf.where(mirrored)[:, 0]
    return tf.cond(
        tf.reduce_any(mirrored), lambda: tf.reverse(array, axes), lambda: array
    )


def coordinate_signs(mirrored: tf.Tensor) -> tf.Tensor:
    """Returns factors that mirror coordinates about the centre. (3,) float32."""
    return tf.where(mirrored, -1.0, 1.0)
