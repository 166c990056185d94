"""Coordinates in the volume of the voxels of an augmented patch.

Mirroring, elastic deformation, rotation, scaling and resizing to the network's patch
size are combined in one coordinate field. Transforms are computed in millimetres about
the centre of the patch, so that rotation does not shear organs, however thick the
slices are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.input.augmentation import elastic, mirroring
from u2net_tf.input.augmentation.draw import draw_chance, draw_uniform
from u2net_tf.interpolation.positions import axis_positions


@dataclasses.dataclass(frozen=True)
class PatchGrid:
    """The voxel grid of a patch. Triples are z, y, x.

    Attributes:
      patch_size: size of a patch without spatial transforms, voxels of the volume.
      size: patch size of the network, voxels.
      spacing_mm: voxel size of the volume.
    """

    patch_size: tuple[int, int, int]
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    def positions_mm(self) -> list[np.ndarray]:
        """Returns the positions of the network's voxels per axis, mm from the centre.

        Positions beyond the outermost voxel centres of the crop are clipped to them, as
        in `interpolation.matrices.interpolation_matrix`.
        """
        positions = []
        for old, new, spacing in zip(
            self.patch_size, self.size, self.spacing_mm, strict=True
        ):
            centred = np.clip(axis_positions(new, old), 0, old - 1) - (old - 1) / 2
            positions.append(centred * spacing)
        return positions


class SpatialParameters(NamedTuple):
    """Drawn parameters of the spatial transforms of a patch.

    Attributes:
      mirrored: (3,) bool, axes z, y, x.
      angle: scalar, rotation about z, radians.
      scale: scalar, factor of the patch's extent.
      displacement_std_mm: scalar, 0 for no elastic deformation.
      elastic_sigma_mm: scalar.
      noise: (3, K_z, K_y, K_x), see `elastic.displacements`.
      moves: scalar bool, whether any transform but mirroring is applied.
    """

    mirrored: tf.Tensor
    angle: tf.Tensor
    scale: tf.Tensor
    displacement_std_mm: tf.Tensor
    elastic_sigma_mm: tf.Tensor
    noise: tf.Tensor
    moves: tf.Tensor


def draw_spatial(
    grid: PatchGrid,
    augmentation: AugmentationConfig,
    mirrored: tf.Tensor,
    seed: tf.Tensor,
) -> SpatialParameters:
    """Draws the parameters of the spatial transforms of a patch.

    Args:
      grid: voxel grid of the patch.
      augmentation: probabilities and ranges.
      mirrored: (3,) bool, as `mirroring.draw_mirroring` draws it.
      seed: (2,) integers.
    """
    seeds = tf.unstack(tf.random.split(seed, 6))
    chances = (
        augmentation.elastic_probability,
        augmentation.rotation_probability,
        augmentation.scaling_probability,
    )
    applies = draw_chance(chances, seeds[0], count=3)
    deformed, rotated, scaled = tf.unstack(applies)
    alpha, sigma, degrees, scale = (
        draw_uniform(values, seed, count=1)[0]
        for values, seed in zip(
            (
                augmentation.elastic_alpha,
                augmentation.elastic_sigma_mm,
                augmentation.rotation_degrees,
                augmentation.scale,
            ),
            seeds[1:5],
            strict=True,
        )
    )
    noise_shape = elastic_noise_shape(grid, augmentation)
    return SpatialParameters(
        mirrored=mirrored,
        angle=tf.where(rotated, degrees * (math.pi / 180), 0.0),
        scale=tf.where(scaled, scale, 1.0),
        displacement_std_mm=tf.where(
            deformed, elastic.displacement_std(alpha, sigma), 0.0
        ),
        elastic_sigma_mm=sigma,
        noise=tf.random.stateless_normal(noise_shape, seeds[5]),
        moves=tf.reduce_any(applies),
    )


def coordinates(
    grid: PatchGrid, augmentation: AugmentationConfig, spatial: SpatialParameters
) -> list[tf.Tensor]:
    """Returns the coordinates in the volume of the voxels of an augmented patch.

    Args:
      grid: voxel grid of the patch.
      augmentation: settings that `spatial` was drawn with.
      spatial: parameters of the transforms.

    Returns:
      z, y and x, each broadcastable to `grid.size`, in voxels of the volume from the
      centre of the patch.
    """
    positions = grid.positions_mm()
    signs = mirroring.coordinate_signs(spatial.mirrored)
    field = elastic.displacements(
        spatial.noise,
        positions,
        _lattices(grid, augmentation),
        spatial.elastic_sigma_mm,
        spatial.displacement_std_mm,
    )
    z, y, x = (
        signs[axis]
        * tf.reshape(tf.constant(along, tf.float32), _broadcast_shape(axis, len(along)))
        + field[axis]
        for axis, along in enumerate(positions)
    )
    cos = tf.cos(spatial.angle) * spatial.scale
    sin = tf.sin(spatial.angle) * spatial.scale
    moved = (spatial.scale * z, cos * y - sin * x, sin * y + cos * x)
    return [
        values / spacing for values, spacing in zip(moved, grid.spacing_mm, strict=True)
    ]


def needed_extent(grid: PatchGrid, spatial: SpatialParameters) -> tf.Tensor:
    """Returns how far a patch extends from its centre, voxels. (3,) float32."""
    half = tf.constant([positions[-1] for positions in grid.positions_mm()], tf.float32)
    half = half + elastic.MAX_STDS * spatial.displacement_std_mm
    z, y, x = tf.unstack(half * spatial.scale)
    cos, sin = tf.abs(tf.cos(spatial.angle)), tf.abs(tf.sin(spatial.angle))
    extent = tf.stack([z, cos * y + sin * x, sin * y + cos * x])
    return extent / tf.constant(grid.spacing_mm, tf.float32)


def largest_extent(grid: PatchGrid, augmentation: AugmentationConfig) -> np.ndarray:
    """Returns the largest possible `needed_extent`. (3,) float64."""
    half = np.array([positions[-1] for positions in grid.positions_mm()])
    if augmentation.elastic_probability:
        std = elastic.displacement_std(
            augmentation.elastic_alpha[1], augmentation.elastic_sigma_mm[0]
        )
        half = half + elastic.MAX_STDS * std
    if augmentation.scaling_probability:
        half = half * max(1.0, augmentation.scale[1])
    if augmentation.rotation_probability:
        # At some angle the diagonal lies along an axis.
        half[1:] = math.hypot(half[1], half[2])
    return half / np.array(grid.spacing_mm)


def elastic_noise_shape(
    grid: PatchGrid, augmentation: AugmentationConfig
) -> tuple[int, ...]:
    """Returns the shape of `SpatialParameters.noise`; empty without deformation."""
    return (3, *(len(points) for points in _lattices(grid, augmentation)))


def _lattices(grid: PatchGrid, augmentation: AugmentationConfig) -> list[np.ndarray]:
    if not augmentation.elastic_probability:
        # Sums over no points are displacements of 0.
        return [np.zeros(0)] * 3
    return [
        elastic.lattice(positions, augmentation.elastic_sigma_mm)
        for positions in grid.positions_mm()
    ]


def _broadcast_shape(axis: int, count: int) -> Sequence[int]:
    shape = [1, 1, 1]
    shape[axis] = count
    return shape
