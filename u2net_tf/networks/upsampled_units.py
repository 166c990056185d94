"""Convolution units whose inputs are up-sampled, without the up-sampled maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import keras
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.conv_units import (
    ConvUnit,
    ParallelUnit,
    PlainUnit,
    SeparableUnit,
    SeriesUnit,
)
from u2net_tf.networks.gradient_checkpointing import (
    add_checkpointed,
    call_checkpointed,
)
from u2net_tf.networks.ops.biases import add_bias

# Channels of an up-sampled input that a separable unit has at full size at a time.
MAX_CHANNELS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class LinearUpsampling:
    """How the inputs of a unit are up-sampled.

    Attributes:
      factors: Of each input, along D, H, W.
      align_corners: See `ops.upsample_linear`.
    """

    factors: tuple[tuple[int, ...], ...]
    align_corners: bool

    def upsample(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the up-sampled inputs."""
        return [
            tensor
            if max(factors) == 1
            else ops.upsample_linear(tensor, factors, align_corners=self.align_corners)
            for tensor, factors in zip(inputs, self.factors, strict=True)
        ]

    def convolve(
        self, inputs: Sequence[tf.Tensor], kernel: tf.Tensor, bias: tf.Tensor
    ) -> tf.Tensor:
        """Convolves the up-sampled inputs, which count as concatenated."""
        return ops.conv3d_upsampled(
            inputs,
            _like(inputs, kernel),
            _like(inputs, bias),
            factors=self.factors,
            align_corners=self.align_corners,
        )


def _like(
    inputs: Sequence[tf.Tensor], variable: keras.Variable | tf.Tensor
) -> tf.Tensor:
    """Returns the value in the dtype of the inputs.

    Keras casts what a layer reads only while the layer is called, and gradient
    checkpointing computes again later.
    """
    return tf.cast(tf.convert_to_tensor(variable), inputs[0].dtype)


def run_upsampled(
    unit: ConvUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    *,
    domain: int,
) -> tf.Tensor:
    """Returns what a unit makes of up-sampled inputs that count as concatenated.

    Args:
      unit: The unit.
      inputs: Tensors of shape (N, D/f, H/f, W/f, C).
      upsampling: How they are up-sampled.
      domain: Index of the domain.

    Returns:
      A tensor of shape (N, D, H, W, filters).
    """
    # Of the up-sampled maps, other runtimes' compilers know what to make.
    is_exported = ops.current_implementation() == "export"
    if len(inputs) == 1 or type(unit) not in _RUN or is_exported:
        maps = upsampling.upsample(inputs)
        return unit(maps if len(maps) > 1 else maps[0], domain=domain)
    return _RUN[type(unit)](unit, inputs, upsampling, domain)


def _run_plain(
    unit: PlainUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tf.Tensor:
    hidden = upsampling.convolve(inputs, unit.conv.kernel, unit.conv.bias)
    return unit.norm(hidden, domain=domain)


def _run_series(
    unit: SeriesUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tf.Tensor:
    hidden = upsampling.convolve(inputs, unit.conv.kernel, unit.conv.bias)
    normalized = unit.adapter_norm(hidden, domain=domain)
    correction = unit.adapter(normalized, domain=domain)
    return unit.norm(correction + hidden, domain=domain)


def _run_parallel(
    unit: ParallelUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tf.Tensor:
    # The pointwise kernel is one tap more, added to the one that sees the same voxel.
    around = [[size // 2] * 2 for size in unit.kernel_size]
    pointwise = _like(inputs, unit.adapter.kernels[domain])
    kernel = _like(inputs, unit.conv.kernel)
    kernel += tf.pad(pointwise, [*around, [0, 0], [0, 0]])
    bias = _like(inputs, unit.conv.bias)
    bias += _like(inputs, unit.adapter.biases[domain])
    hidden = upsampling.convolve(inputs, kernel, bias)
    return unit.norm(hidden, domain=domain)


def _run_separable(
    unit: SeparableUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tf.Tensor:
    """Adds up what the pointwise convolution makes of each group of channels.

    A norm and an activation stand before it, so that every channel is computed at full
    size; but those of an up-sampled input a few at a time, and for the backward pass
    again.
    """
    near, far = _groups(unit, inputs, upsampling, domain)
    hidden = None
    for tensors, _ in near:
        summand = _separable_summand(unit, *tensors)
        hidden = summand if hidden is None else hidden + summand
    for tensors, factors in far:

        def upsample_and_run(
            group: tf.Tensor, *parameters: tf.Tensor, factors: tuple[int, ...] = factors
        ) -> tf.Tensor:
            group = ops.upsample_linear(
                group, factors, align_corners=upsampling.align_corners
            )
            return _separable_summand(unit, group, *parameters)

        if hidden is None:
            hidden = call_checkpointed(upsample_and_run, (), *tensors)
        else:
            hidden = add_checkpointed(hidden, upsample_and_run, *tensors)
    hidden = add_bias(hidden, _like(inputs, unit.pointwise.bias))
    return unit.norm(hidden, domain=domain)


# Tensors of a summand: a group of channels and their parameters; and the factors.
_Group: TypeAlias = tuple[tuple[tf.Tensor, ...], tuple[int, ...]]


def _groups(
    unit: SeparableUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tuple[list[_Group], list[_Group]]:
    """The groups of channels of inputs at full size, and those of the others."""
    sizes, groups = [], []
    for tensor, factors in zip(inputs, upsampling.factors, strict=True):
        channels = tensor.shape[-1]
        number = 1 if max(factors) == 1 else -(-channels // MAX_CHANNELS_AT_ONCE)
        split = tf.split(tensor, _even_sizes(channels, number), axis=-1)
        sizes += [group.shape[-1] for group in split]
        groups += [(group, factors) for group in split]
    of_channels = (
        (unit.depthwise.kernels[domain], -1),
        (unit.depthwise.biases[domain], -1),
        (unit.depthwise_norm.gammas[domain], -1),
        (unit.depthwise_norm.betas[domain], -1),
        (unit.pointwise.kernel, 3),
    )
    parameters = zip(
        *(tf.split(_like(inputs, v), sizes, axis) for v, axis in of_channels),
        strict=True,
    )
    near: list[_Group] = []
    far: list[_Group] = []
    for (group, factors), own in zip(groups, parameters, strict=True):
        (near if max(factors) == 1 else far).append(((group, *own), factors))
    return near, far


def _even_sizes(channels: int, number: int) -> list[int]:
    """Sizes of so many groups, which differ by one at most."""
    size, larger = divmod(channels, number)
    return [size + 1] * larger + [size] * (number - larger)


def _separable_summand(
    unit: SeparableUnit,
    group: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    pointwise: tf.Tensor,
) -> tf.Tensor:
    hidden = ops.depthwise_conv3d(group, kernel, bias)
    hidden = ops.instance_norm(
        hidden,
        gamma,
        beta,
        epsilon=unit.depthwise_norm.epsilon,
        negative_slope=unit.depthwise_norm.negative_slope,
    )
    return ops.conv3d(hidden, pointwise)


_RUN: Mapping[type[ConvUnit], Callable[..., tf.Tensor]] = {
    PlainUnit: _run_plain,
    SeparableUnit: _run_separable,
    SeriesUnit: _run_series,
    ParallelUnit: _run_parallel,
}
