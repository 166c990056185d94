"""Intensity transforms, applied to each modality separately.

In nnU-Net's order: noise, blur, brightness, contrast, low resolution, gamma of the
inverted image, gamma. A transform of probability 0 is not part of the graph.

Reference: Isensee et al., Nature Methods 2021, supplementary note 4. Here, values are
drawn uniformly from each range; there, contrast and gamma are first chosen to be below
or above 1.
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
# Avoids a division by 0 in patches of constant intensity.
_MIN_DIVISOR = 1e-7


class IntensityParameters(NamedTuple):
    """Drawn parameters of the intensity transforms of a patch of C modalities.

    Attributes:
      noise_std: scalar, 0 for no noise.
      noise_seed: (2,) integers.
      blur_sigma_voxels: (C,), 0 for no blur.
      brightness: (C,), 1 for no change.
      contrast: (C,), 1 for no change.
      zoom: (C,), 1 for no change.
      gamma_inverted: (C,), 1 for no change.
      gamma: (C,), 1 for no change.
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
) -> IntensityParameters:
    """Draws the parameters of the intensity transforms of a patch.

    Args:
      num_modalities: C.
      augmentation: probabilities and ranges.
      seed: (2,) integers.
    """
    seeds = tf.unstack(tf.random.split(seed, 8))

    def draw(
        probability: float, values: Range, neutral: float, seed: tf.Tensor, count: int
    ) -> tf.Tensor:
        chance_seed, value_seed = tf.unstack(tf.random.split(seed, 2))
        return tf.where(
            draw_chance(probability, chance_seed, count=count),
            draw_uniform(values, value_seed, count=count),
            neutral,
        )

    def draw_each(
        name: str, values: Range, neutral: float, seed: tf.Tensor
    ) -> tf.Tensor:
        probability = getattr(augmentation, f"{name}_probability")
        return draw(probability, values, neutral, seed, num_modalities)

    a = augmentation
    variance = draw(a.noise_probability, a.noise_variance, 0.0, seeds[0], 1)[0]
    return IntensityParameters(
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
    image: tf.Tensor, augmentation: AugmentationConfig, drawn: IntensityParameters
) -> tf.Tensor:
    """Applies intensity transforms to a patch.

    Args:
      image: (z, y, x, C) float32, static.
      augmentation: settings that `drawn` was drawn with.
      drawn: parameters of the transforms.
    """
    a = augmentation
    if a.noise_probability:
        image = tf.cond(
            drawn.noise_std > 0,
            lambda: apply_noise(image, drawn.noise_std, drawn.noise_seed),
            lambda: image,
        )
    max_sigma = a.blur_sigma_voxels[1]
    steps = (
        (
            a.blur_probability,
            drawn.blur_sigma_voxels,
            0.0,
            lambda channel, value: apply_blur(channel, value, largest=max_sigma),
        ),
        (a.brightness_probability, drawn.brightness, 1.0, tf.multiply),
        (a.contrast_probability, drawn.contrast, 1.0, apply_contrast),
        (a.low_resolution_probability, drawn.zoom, 1.0, apply_low_resolution),
        (
            a.gamma_inverted_probability,
            drawn.gamma_inverted,
            1.0,
            lambda channel, value: -apply_gamma(-channel, value),
        ),
        (a.gamma_probability, drawn.gamma, 1.0, apply_gamma),
    )
    if not any(probability for probability, *_ in steps):
        return image
    channels = tf.unstack(image, axis=-1)
    for probability, values, neutral, apply in steps:
        if probability:
            channels = [
                _apply_unless(neutral, apply, channel, values[index])
                for index, channel in enumerate(channels)
            ]
    return tf.stack(channels, axis=-1)


def _apply_unless(
    neutral: float,
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    channel: tf.Tensor,
    value: tf.Tensor,
) -> tf.Tensor:
    return tf.cond(
        tf.equal(value, neutral), lambda: channel, lambda: apply(channel, value)
    )


def apply_noise(image: tf.Tensor, std: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Adds Gaussian noise of this standard deviation, as a function of the seed."""
    return image + std * tf.random.stateless_normal(tf.shape(image), seed)


def apply_contrast(channel: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales intensities about their mean and clips them to their original range."""
    mean = tf.reduce_mean(channel)
    stretched = mean + (channel - mean) * factor
    return tf.clip_by_value(stretched, tf.reduce_min(channel), tf.reduce_max(channel))


def apply_gamma(channel: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """Applies a gamma transform that keeps mean and standard deviation."""
    low, high = tf.reduce_min(channel), tf.reduce_max(channel)
    normalized = (channel - low) / tf.maximum(high - low, _MIN_DIVISOR)
    # The range cancels out, since mean and standard deviation are restored.
    powers = normalized**exponent
    factor = tf.math.reduce_std(channel) / tf.maximum(
        tf.math.reduce_std(powers), _MIN_DIVISOR
    )
    return (powers - tf.reduce_mean(powers)) * factor + tf.reduce_mean(channel)


def apply_blur(
    channel: tf.Tensor, sigma_voxels: tf.Tensor, *, largest: float
) -> tf.Tensor:
    """Filters (z, y, x) with a Gaussian; borders are mirrored.

    Args:
      channel: (z, y, x), static.
      sigma_voxels: scalar.
      largest: largest possible sigma, which determines the length of the filter.
    """
    reach = math.ceil(_BLUR_REACH * largest)
    steps = np.arange(-reach, reach + 1)
    weights = tf.exp(-0.5 * (tf.constant(steps, tf.float32) / sigma_voxels) ** 2)
    weights /= tf.reduce_sum(weights)

    def matrix(size: int) -> tf.Tensor:
        # Voxel -1 repeats voxel 0, voxel -2 repeats voxel 1, and so on.
        index = (np.arange(size)[:, None] + steps) % (2 * size)
        index = np.where(index < size, index, 2 * size - 1 - index)
        taps = tf.one_hot(index, size)
        return tf.einsum("ntm,t->nm", taps, weights)

    return _apply_matrices(channel, matrix)


def apply_low_resolution(channel: tf.Tensor, zoom: tf.Tensor) -> tf.Tensor:
    """Resamples to a coarser grid by nearest neighbour and back by cubic interpolation.

    Args:
      channel: (z, y, x), static.
      zoom: scalar, size of the coarser grid as a fraction of that of the patch.
    """

    def matrix(size: int) -> tf.Tensor:
        coarse = tf.maximum(tf.round(size * zoom), 1.0)
        fine = tf.range(size, dtype=tf.float32)
        position = resized_positions(fine, new=size, old=coarse)
        lower = tf.floor(position)
        weights = tf.stack(keys_cubic_weights(position - lower), axis=1)
        neighbours = tf.clip_by_value(
            lower[:, None] + tf.range(-1.0, 3.0), 0.0, coarse - 1.0
        )
        # Values of the coarser grid are those of the nearest voxels of the patch.
        nearest = tf.cast(
            resized_positions(neighbours, new=coarse, old=size) + 0.5, tf.int32
        )
        return tf.einsum("ntm,nt->nm", tf.one_hot(nearest, size), weights)

    return _apply_matrices(channel, matrix)


def _apply_matrices(
    channel: tf.Tensor, matrix: Callable[[int], tf.Tensor]
) -> tf.Tensor:
    """Multiplies (z, y, x) along each axis with the matrix for its size."""
    depth, height, width = channel.shape.as_list()
    rows = tf.reshape(channel, [depth * height, width])
    rows = tf.matmul(rows, matrix(width), transpose_b=True)
    slabs = tf.reshape(rows, [depth, height, width])
    slabs = tf.matmul(tf.tile(matrix(height)[None], [depth, 1, 1]), slabs)
    flat = tf.matmul(matrix(depth), tf.reshape(slabs, [depth, height * width]))
    return tf.reshape(flat, [depth, height, width])
