"""Where in its volume each voxel of an augmented patch comes from.

Mirroring, elastic deformation, rotation, scaling and the resize to the network's patch
are one field of coordinates. All of it happens in millimetres about the patch's centre:
a rotation turns an organ without shearing it, however thick the slices are.
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
    """The voxels of a patch. Triples are z, y, x.

    Attributes:
      patch_size: what is cropped from the volume where nothing moves, voxels of the
        volume.
      size: the network's patch, voxels.
      spacing_mm: of the volume.
    """

    patch_size: tuple[int, int, int]
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    def positions_mm(self) -> list[np.ndarray]:
        """Per axis, where the network's voxels lie, mm from the centre.

        Those beyond the outermost voxel centres of the crop take these, as in
        `interpolation.matrices.interpolation_matrix`.
        """
        found = []
        for old, new, spacing in zip(
            self.patch_size, self.size, self.spacing_mm, strict=True
        ):
            centred = np.clip(axis_positions(new, old), 0, old - 1) - (old - 1) / 2
            found.append(centred * spacing)
        return found


class Spatial(NamedTuple):
    """What happens to the voxels of one patch, drawn.

    Attributes:
      mirrored: (3,) bool, axes z, y, x.
      angle: scalar, rotation about z, radians.
      scale: scalar, factor of the patch's extent.
      displacement_std_mm: scalar, 0 where there is no elastic deformation.
      elastic_sigma_mm: scalar.
      noise: (3, K_z, K_y, K_x), see `elastic.displacements`.
      moves: scalar bool, whether voxels move otherwise than by mirroring.
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
) -> Spatial:
    """Draws what happens to the voxels of one patch.

    Args:
      grid: of the patch.
      augmentation: how often and how much.
      mirrored: (3,) bool, as `mirroring.draw_mirroring` draws it.
      seed: (2,) integers.
    """
    seeds = tf.unstack(tf.random.split(seed, 6))
    chances = (
        augmentation.elastic_probability,
        augmentation.rotation_probability,
        augmentation.scaling_probability,
    )
    happens = draw_chance(chances, seeds[0], count=3)
    deformed, rotated, scaled = tf.unstack(happens)
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
    sizes = [len(points) for points in _lattices(grid, augmentation)]
    return Spatial(
        mirrored=mirrored,
        angle=tf.where(rotated, degrees * (math.pi / 180), 0.0),
        scale=tf.where(scaled, scale, 1.0),
        displacement_std_mm=tf.where(
            deformed, elastic.displacement_std(alpha, sigma), 0.0
        ),
        elastic_sigma_mm=sigma,
        noise=tf.random.stateless_normal([3, *sizes], seeds[5]),
        moves=tf.reduce_any(happens),
    )


def coordinates(
    grid: PatchGrid, augmentation: AugmentationConfig, spatial: Spatial
) -> list[tf.Tensor]:
    """Where in the volume the voxels of the augmented patch come from.

    Args:
      grid: of the patch.
      augmentation: that `spatial` was drawn with.
      spatial: what happens.

    Returns:
      z, y and x, each broadcastable to `grid.size`: voxels of the volume from the
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
        * tf.reshape(tf.constant(along, tf.float32), _along(axis, len(along)))
        + field[axis]
        for axis, along in enumerate(positions)
    )
    cos = tf.cos(spatial.angle) * spatial.scale
    sin = tf.sin(spatial.angle) * spatial.scale
    moved = (spatial.scale * z, cos * y - sin * x, sin * y + cos * x)
    return [
        values / spacing for values, spacing in zip(moved, grid.spacing_mm, strict=True)
    ]


def needed_extent(grid: PatchGrid, spatial: Spatial) -> tf.Tensor:
    """How far from its centre the patch reaches. (3,) float32 voxels of the volume."""
    half = tf.constant([positions[-1] for positions in grid.positions_mm()], tf.float32)
    half = half + elastic.MAX_STDS * spatial.displacement_std_mm
    z, y, x = tf.unstack(half * spatial.scale)
    cos, sin = tf.abs(tf.cos(spatial.angle)), tf.abs(tf.sin(spatial.angle))
    extent = tf.stack([z, cos * y + sin * x, sin * y + cos * x])
    return extent / tf.constant(grid.spacing_mm, tf.float32)


def largest_extent(grid: PatchGrid, augmentation: AugmentationConfig) -> np.ndarray:
    """The largest that `needed_extent` can be, whatever is drawn. (3,) float64."""
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


def _lattices(grid: PatchGrid, augmentation: AugmentationConfig) -> list[np.ndarray]:
    return [
        elastic.lattice(positions, augmentation.elastic_sigma_mm)
        for positions in grid.positions_mm()
    ]


def _along(axis: int, count: int) -> Sequence[int]:
    shape = [1, 1, 1]
    shape[axis] = count
    return shape
