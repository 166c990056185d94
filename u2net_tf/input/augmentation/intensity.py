"""Transforms of intensities, each modality by itself; no voxel moves.

In nnU-Net's order: noise, blur, brightness, contrast, low resolution, gamma of the
inverted image, gamma. A transform without a probability is not part of the graph.

Reference: Isensee et al., Nature Methods 2021, supplementary note 4. Ranges are drawn
from uniformly; there, those of contrast and gamma are halved at 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig, Range
from u2net_tf.input.augmentation.draw import draw_chance, draw_uniform
from u2net_tf.interpolation.kernels import keys_cubic_weights
from u2net_tf.interpolation.positions import resized_positions

# Standard deviations at which a Gaussian is truncated.
_BLUR_REACH = 4.0
# Keeps a patch of constant intensity from a division by 0.
_MIN_DIVISOR = 1e-7


class Intensity(NamedTuple):
    """What happens to the intensities of one patch of C modalities, drawn.

    Attributes:
      noise_std: scalar, 0 for no noise.
      noise_seed: (2,) integers.
      blur_sigma_voxels: (C,), 0 for none.
      brightness: (C,), 1 for none.
      contrast: (C,), 1 for none.
      zoom: (C,), 1 for none.
      gamma_inverted: (C,), 1 for none.
      gamma: (C,), 1 for none.
    """

    noise_std: tf.Tensor
    noise_seed: tf.Tensor
    blur_sigma_voxels: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    zoom: tf.Tensor
    gamma_inverted: tf.Tensor
    gamma: tf.Tensor


def draw_intensity(
    num_modalities: int, augmentation: AugmentationConfig, seed: tf.Tensor
) -> Intensity:
    """Draws what happens to the intensities of one patch.

    Args:
      num_modalities: C.
      augmentation: how often and how much.
      seed: (2,) integers.
    """
    seeds = tf.unstack(tf.random.split(seed, 8))

    def draw(
        probability: float, values: Range, none: float, seed: tf.Tensor, count: int
    ) -> tf.Tensor:
        happens, value = tf.unstack(tf.random.split(seed, 2))
        return tf.where(
            draw_chance(probability, happens, count=count),
            draw_uniform(values, value, count=count),
            none,
        )

    def draw_each(name: str, values: Range, none: float, seed: tf.Tensor) -> tf.Tensor:
        probability = getattr(augmentation, f"{name}_probability")
        return draw(probability, values, none, seed, num_modalities)

    a = augmentation
    variance = draw(a.noise_probability, a.noise_variance, 0.0, seeds[0], 1)[0]
    return Intensity(
        noise_std=tf.sqrt(variance),
        noise_seed=seeds[1],
        blur_sigma_voxels=draw_each("blur", a.blur_sigma_voxels, 0.0, seeds[2]),
        brightness=draw_each("brightness", a.brightness, 1.0, seeds[3]),
        contrast=draw_each("contrast", a.contrast, 1.0, seeds[4]),
        zoom=draw_each("low_resolution", a.low_resolution_zoom, 1.0, seeds[5]),
        gamma_inverted=draw_each("gamma_inverted", a.gamma, 1.0, seeds[6]),
        gamma=draw_each("gamma", a.gamma, 1.0, seeds[7]),
    )


def apply_intensity(
    image: tf.Tensor, augmentation: AugmentationConfig, drawn: Intensity
) -> tf.Tensor:
    """Changes the intensities of a patch.

    Args:
      image: (z, y, x, C) float32, static.
      augmentation: that `drawn` was drawn with.
      drawn: what happens.
    """
    a = augmentation
    if a.noise_probability:
        image = tf.cond(
            drawn.noise_std > 0,
            lambda: apply_noise(image, drawn.noise_std, drawn.noise_seed),
            lambda: image,
        )
    widest = a.blur_sigma_voxels[1]
    steps = (
        (
            a.blur_probability,
            drawn.blur_sigma_voxels,
            0.0,
            lambda plane, value: apply_blur(plane, value, largest=widest),
        ),
        (a.brightness_probability, drawn.brightness, 1.0, tf.multiply),
        (a.contrast_probability, drawn.contrast, 1.0, apply_contrast),
        (a.low_resolution_probability, drawn.zoom, 1.0, apply_low_resolution),
        (
            a.gamma_inverted_probability,
            drawn.gamma_inverted,
            1.0,
            lambda plane, value: -apply_gamma(-plane, value),
        ),
        (a.gamma_probability, drawn.gamma, 1.0, apply_gamma),
    )
    if not any(probability for probability, *_ in steps):
        return image
    planes = tf.unstack(image, axis=-1)
    for probability, values, none, apply in steps:
        if probability:
            planes = [
                _apply_unless(none, apply, plane, values[channel])
                for channel, plane in enumerate(planes)
            ]
    return tf.stack(planes, axis=-1)


def _apply_unless(
    none: float,
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    plane: tf.Tensor,
    value: tf.Tensor,
) -> tf.Tensor:
    return tf.cond(tf.equal(value, none), lambda: plane, lambda: apply(plane, value))


def apply_noise(image: tf.Tensor, std: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Adds Gaussian noise of this standard deviation, a function of the seed."""
    return image + std * tf.random.stateless_normal(tf.shape(image), seed)


def apply_contrast(plane: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Stretches intensities about their mean, within the range that they had."""
    mean = tf.reduce_mean(plane)
    stretched = mean + (plane - mean) * factor
    return tf.clip_by_value(stretched, tf.reduce_min(plane), tf.reduce_max(plane))


def apply_gamma(plane: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """Takes a power of intensities in their range; mean and deviation stay."""
    low, high = tf.reduce_min(plane), tf.reduce_max(plane)
    share = (plane - low) / tf.maximum(high - low, _MIN_DIVISOR)
    # The range itself cancels out, as mean and deviation are restored.
    powers = share**exponent
    factor = tf.math.reduce_std(plane) / tf.maximum(
        tf.math.reduce_std(powers), _MIN_DIVISOR
    )
    return (powers - tf.reduce_mean(powers)) * factor + tf.reduce_mean(plane)


def apply_blur(
    plane: tf.Tensor, sigma_voxels: tf.Tensor, *, largest: float
) -> tf.Tensor:
    """Filters (z, y, x) with a Gaussian; the borders are mirrored.

    Args:
      plane: static.
      sigma_voxels: scalar.
      largest: the largest that it can be, which sets the length of the filter.
    """
    reach = math.ceil(_BLUR_REACH * largest)
    steps = np.arange(-reach, reach + 1)
    weights = tf.exp(-0.5 * (tf.constant(steps, tf.float32) / sigma_voxels) ** 2)
    weights /= tf.reduce_sum(weights)

    def matrix(size: int) -> tf.Tensor:
        # Voxel -1 is voxel 0 again, and so on to and fro.
        index = (np.arange(size)[:, None] + steps) % (2 * size)
        index = np.where(index < size, index, 2 * size - 1 - index)
        taps = tf.one_hot(index, size)
        return tf.einsum("ntm,t->nm", taps, weights)

    return _apply_matrices(plane, matrix)


def apply_low_resolution(plane: tf.Tensor, zoom: tf.Tensor) -> tf.Tensor:
    """Takes every voxel of a coarser grid, and those between them from its cubics.

    Args:
      plane: (z, y, x), static.
      zoom: scalar, size of the coarser grid over that of the patch.
    """

    def matrix(size: int) -> tf.Tensor:
        coarse = tf.maximum(tf.round(size * zoom), 1.0)
        fine = tf.range(size, dtype=tf.float32)
        position = resized_positions(fine, new=size, old=coarse)
        first = tf.floor(position)
        weights = tf.stack(keys_cubic_weights(position - first), axis=1)
        taken = tf.clip_by_value(
            first[:, None] + tf.range(-1.0, 3.0), 0.0, coarse - 1.0
        )
        # What the coarser grid holds are the voxels of the patch nearest to its own.
        nearest = tf.cast(
            resized_positions(taken, new=coarse, old=size) + 0.5, tf.int32
        )
        return tf.einsum("ntm,nt->nm", tf.one_hot(nearest, size), weights)

    return _apply_matrices(plane, matrix)


def _apply_matrices(plane: tf.Tensor, matrix: Callable[[int], tf.Tensor]) -> tf.Tensor:
    """Multiplies (z, y, x) along each axis with the matrix for its size."""
    depth, height, width = plane.shape.as_list()
    rows = tf.reshape(plane, [depth * height, width])
    rows = tf.matmul(rows, matrix(width), transpose_b=True)
    slabs = tf.reshape(rows, [depth, height, width])
    slabs = tf.matmul(tf.tile(matrix(height)[None], [depth, 1, 1]), slabs)
    flat = tf.matmul(matrix(depth), tf.reshape(slabs, [depth, height * width]))
    return tf.reshape(flat, [depth, height, width])
