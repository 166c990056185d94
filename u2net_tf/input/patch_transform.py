"""A patch as the network gets it: cut, augmented and resized."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.input import cropping
from u2net_tf.input.augmentation import intensity, spatial, warp
from u2net_tf.plan.domains import Domain

Fields = Mapping[str, tf.Tensor]
# Kept apart from the seeds that `tf.random.split` makes of the same one.
_SPATIAL, _INTENSITY = 1, 2


def make_cutter(
    domain: Domain,
    size: tuple[int, int, int],
    *,
    method: str,
    mirror_probability: float,
    augmentation: AugmentationConfig,
) -> Callable[[Fields, tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """The function from a record to one patch.

    It takes a record as `records.parse` returns it, the patch's (3,) first voxel and
    the seeds of mirroring and of the rest, and returns the (*size, C) float32 image and
    the (*size) labels.

    A patch whose voxels do not move is cut, mirrored and resized by `patches`. One
    whose voxels do is interpolated once, at coordinates that hold all of it.

    Args:
      domain: the domain.
      size: the network's patch, z, y, x.
      method: "linear" or "cubic", for images.
      mirror_probability: for each axis that the domain allows.
      augmentation: what else may happen.
    """
    grid = spatial.Grid(domain.patch_size, size, domain.spacing_mm)
    moved = None
    if augmentation.moves_voxels:
        moved = warp.make_warp(grid, augmentation, method)

    def cut(fields: Fields, start: tf.Tensor, mirror: tf.Tensor, seed: tf.Tensor):
        mirrored = cropping.draw_mirroring(
            domain.mirror_axes, mirror_probability, mirror
        )

        def cut_still():
            image, labels = cropping.cut_patch(fields, start, domain.patch_size)
            image = tf.cast(image, tf.float32)
            image = cropping.apply_mirroring(image, mirrored)
            labels = cropping.apply_mirroring(labels, mirrored)
            return cropping.resize_patch(image, labels, size, method=method)

        if moved is None:
            image, labels = cut_still()
        else:
            own = tf.random.fold_in(seed, tf.constant(_SPATIAL, seed.dtype))
            drawn = spatial.draw_spatial(grid, augmentation, mirrored, own)
            image, labels = tf.cond(
                drawn.moves, lambda: moved(fields, start, drawn), cut_still
            )
        if augmentation.changes_intensities:
            own = tf.random.fold_in(seed, tf.constant(_INTENSITY, seed.dtype))
            changes = intensity.draw_intensity(domain.num_modalities, augmentation, own)
            image = intensity.apply_intensity(image, augmentation, changes)
        return image, labels

    return cut
