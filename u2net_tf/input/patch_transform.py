"""Makes the patches for the network: cropped, augmented and resized."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.input import cropping
from u2net_tf.input.augmentation import intensity, mirroring, spatial
from u2net_tf.input.augmentation.warp import Warp
from u2net_tf.networks.ops.resizing import resize_image, resize_labels
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.records import Fields

# Image and labels.
Patch = tuple[tf.Tensor, tf.Tensor]
# Record, origin, seed of mirroring and seed of the other transforms -> patch.
PatchTransform = Callable[[Fields, tf.Tensor, tf.Tensor, tf.Tensor], Patch]

# Distinguish these seeds from those that `tf.random.split` derives from the same one.
_SPATIAL, _INTENSITY = 1, 2


def make_patch_transform(
    domain: Domain,
    size: tuple[int, int, int],
    *,
    method: str,
    augmentation: AugmentationConfig,
) -> PatchTransform:
    """Returns the function that makes a patch from a record.

    It takes a record as `records.parse` returns it, the (3,) first voxel of the patch
    and the seeds of mirroring and of the other transforms, and returns the (*size, C)
    float32 image and the (*size) labels.

    A patch without spatial transforms, or with mirroring only, is cropped, mirrored and
    resized. Any other patch is interpolated once, at coordinates that combine all
    spatial transforms.

    Args:
      domain: provides patch size, classes and mirror axes.
      size: patch size of the network, z, y, x.
      method: "linear" or "cubic", for images.
      augmentation: probabilities and ranges of the transforms.
    """
    grid = spatial.PatchGrid(domain.patch_size, size, domain.spacing_mm)
    # Created, and compiled, only if it may be needed.
    warp = Warp(grid, augmentation, method) if augmentation.moves_voxels else None

    def crop_without_warp(
        fields: Fields, origin: tf.Tensor, mirrored: tf.Tensor
    ) -> Patch:
        image, labels = cropping.crop_patch(fields, origin, domain.patch_size)
        image = tf.cast(image, tf.float32)
        image = mirroring.apply_mirroring(image, mirrored)
        labels = mirroring.apply_mirroring(labels, mirrored)
        return (
            resize_image(image[None], size, method=method)[0],
            resize_labels(labels[None], size)[0],
        )

    def crop_and_warp(
        warp: Warp, fields: Fields, origin: tf.Tensor, drawn: spatial.SpatialParameters
    ) -> Patch:
        shape = tf.shape(fields["labels"])
        first = cropping.first_voxel(origin, shape, domain.patch_size)
        box = cropping.crop_box(
            fields, warp.box_start(first), warp.box_size, warp.unused_margin(drawn)
        )
        return warp(*box, drawn)

    def transform(
        fields: Fields, origin: tf.Tensor, mirroring_seed: tf.Tensor, seed: tf.Tensor
    ) -> Patch:
        mirrored = mirroring.draw_mirroring(
            domain.mirror_axes, augmentation.mirror_probability, mirroring_seed
        )
        if warp is None:
            image, labels = crop_without_warp(fields, origin, mirrored)
        else:
            own = tf.random.fold_in(seed, tf.constant(_SPATIAL, seed.dtype))
            drawn = spatial.draw_spatial(grid, augmentation, mirrored, own)
            image, labels = tf.cond(
                drawn.moves,
                lambda: crop_and_warp(warp, fields, origin, drawn),
                lambda: crop_without_warp(fields, origin, mirrored),
            )
        if augmentation.changes_intensities:
            own = tf.random.fold_in(seed, tf.constant(_INTENSITY, seed.dtype))
            changes = intensity.draw_intensity(domain.num_modalities, augmentation, own)
            image = intensity.apply_intensity(image, augmentation, changes)
        return image, labels

    return transform
