"""Random smooth displacements: Gaussian-filtered noise, drawn on a coarse lattice.

Gaussian-filtered white noise is a sum of Gaussians with random weights. A lattice of
weights one standard deviation apart yields the same field as one weight per voxel (up
to ripples of 1e-4 in its variance), and because the Gaussian is separable, the sum is
computed by three small matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# Standard deviations by which the lattice extends beyond the outermost positions.
_REACH = 3.0
# Displacements are clipped at this many standard deviations, which bounds the part of
# the volume that a patch needs and affects 63 voxels in a million.
MAX_STDS = 4.0


def displacement_std(alpha: Any, sigma_mm: Any) -> Any:
    """Returns the standard deviation of the displacement along each axis, mm.

    It is that of noise which is uniform from -1 to 1 on a grid of 1 mm, filtered with a
    Gaussian of `sigma_mm` and multiplied by `alpha`, as in batchgenerators on a grid of
    voxels: √(1/3) · (2 √π sigma)^(-3/2) · alpha.

    Accepts numbers and tensors.
    """
    return alpha * math.sqrt(1 / 3) * (2 * math.sqrt(math.pi) * sigma_mm) ** -1.5


def lattice(positions_mm: np.ndarray, sigma_mm: tuple[float, float]) -> np.ndarray:
    """Returns the lattice points along one axis, mm.

    Args:
      positions_mm: positions of the displacements along this axis.
      sigma_mm: smallest and largest standard deviation. The smallest is the step.

    Returns:
      (K,) float64, centred on the positions.
    """
    low, high = np.min(positions_mm), np.max(positions_mm)
    step = sigma_mm[0]
    count = math.ceil((high - low + 2 * _REACH * sigma_mm[1]) / step) + 1
    return (low + high) / 2 + (np.arange(count) - (count - 1) / 2) * step


def gaussian_matrix(
    positions_mm: np.ndarray, points_mm: np.ndarray, sigma_mm: tf.Tensor
) -> tf.Tensor:
    """Returns the (N, K) matrix from lattice weights to values along one axis.

    The squares of each row sum to 1, so weights of variance 1 yield values of variance
    1.

    Args:
      positions_mm: (N,) positions of the values.
      points_mm: (K,) as `lattice` returns them.
      sigma_mm: scalar.
    """
    distance = tf.constant(positions_mm[:, None] - points_mm, tf.float32)
    rows = tf.exp(-0.5 * (distance / sigma_mm) ** 2)
    return rows * tf.math.rsqrt(tf.reduce_sum(rows**2, axis=1, keepdims=True))


def displacements(
    noise: tf.Tensor,
    positions_mm: Sequence[np.ndarray],
    points_mm: Sequence[np.ndarray],
    sigma_mm: tf.Tensor,
    std_mm: tf.Tensor,
) -> tf.Tensor:
    """Returns the displacements at the positions of a grid.

    Args:
      noise: (3, K_z, K_y, K_x) of variance 1; the first axis is the direction of the
        displacement.
      positions_mm: per axis (N,).
      points_mm: per axis (K,).
      sigma_mm: scalar, smoothness.
      std_mm: scalar, standard deviation along each axis.

    Returns:
      (3, N_z, N_y, N_x) mm, at most `MAX_STDS` standard deviations.
    """
    along_z, along_y, along_x = (
        gaussian_matrix(positions, points, sigma_mm)
        for positions, points in zip(positions_mm, points_mm, strict=True)
    )
    # The largest product comes last, as a product of two matrices.
    field = tf.einsum("azyx,Zz->aZyx", noise, along_z)
    field = tf.einsum("aZyx,Yy->aZYx", field, along_y)
    field = tf.einsum("aZYx,Xx->aZYX", field, along_x)
    return std_mm * tf.clip_by_value(field, -MAX_STDS, MAX_STDS)
