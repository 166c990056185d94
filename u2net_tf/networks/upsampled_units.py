"""Convolution units on up-sampled inputs that are not materialized."""

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

# Channels of an up-sampled input that a separable unit computes at a time.
MAX_CHANNELS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class LinearUpsampling:
    """Linear up-sampling of the inputs of a unit.

    Attributes:
      factors: For each input, the factors along D, H, W.
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
        """Convolves the up-sampled inputs as if concatenated."""
        return ops.conv3d_upsampled(
            inputs,
            _cast_like(inputs, kernel),
            _cast_like(inputs, bias),
            factors=self.factors,
            align_corners=self.align_corners,
        )


def _cast_like(
    inputs: Sequence[tf.Tensor], variable: keras.Variable | tf.Tensor
) -> tf.Tensor:
    """Casts a variable to the dtype of the inputs.

    Keras casts the variables of a layer only while the layer is called, but gradient
    checkpointing recomputes later.
    """
    return tf.cast(tf.convert_to_tensor(variable), inputs[0].dtype)


def run_upsampled(
    unit: ConvUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    *,
    domain: int,
) -> tf.Tensor:
    """Calls a unit on up-sampled inputs as if concatenated.

    Args:
      unit: Unit to call: convolution, norm and activation.
      inputs: Tensors of shape (N, D/f, H/f, W/f, C).
      upsampling: Up-sampling of the inputs.
      domain: Index of the domain.

    Returns:
      A tensor of shape (N, D, H, W, filters).
    """
    # Compilers of other runtimes recognize explicit up-sampling.
    is_exported = ops.current_implementation() == "export"
    if len(inputs) == 1 or type(unit) not in _RUN_BY_TYPE or is_exported:
        groups = upsampling.upsample(inputs)
        return unit(groups if len(groups) > 1 else groups[0], domain=domain)
    return _RUN_BY_TYPE[type(unit)](unit, inputs, upsampling, domain)


def _run_plain_or_series(
    unit: PlainUnit | SeriesUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tf.Tensor:
    hidden = upsampling.convolve(inputs, unit.conv.kernel, unit.conv.bias)
    return unit.after_conv(hidden, domain=domain)


def _run_parallel(
    unit: ParallelUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tf.Tensor:
    # The pointwise kernel is added to the central tap, which sees the same voxel.
    paddings = [[size // 2] * 2 for size in unit.kernel_size]
    pointwise = _cast_like(inputs, unit.adapter.kernels[domain])
    kernel = _cast_like(inputs, unit.conv.kernel)
    kernel += tf.pad(pointwise, [*paddings, [0, 0], [0, 0]])
    bias = _cast_like(inputs, unit.conv.bias)
    bias += _cast_like(inputs, unit.adapter.biases[domain])
    hidden = upsampling.convolve(inputs, kernel, bias)
    return unit.norm(hidden, domain=domain)


def _run_separable(
    unit: SeparableUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tf.Tensor:
    """Sums the pointwise convolutions of groups of channels.

    Norm and activation precede the pointwise convolution, so that every channel must be
    computed at full size; but those of up-sampled inputs are computed a few at a time
    and recomputed in the backward pass.
    """
    full_size, low_resolution = _split_groups(unit, inputs, upsampling, domain)
    hidden = None
    for tensors, _ in full_size:
        summand = _separable_summand(unit, *tensors)
        hidden = summand if hidden is None else hidden + summand
    for tensors, factors in low_resolution:

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
    hidden = add_bias(hidden, _cast_like(inputs, unit.pointwise.bias))
    return unit.norm(hidden, domain=domain)


# Tensors of a summand (a group of channels and its parameters), and the factors.
_Group: TypeAlias = tuple[tuple[tf.Tensor, ...], tuple[int, ...]]


def _split_groups(
    unit: SeparableUnit,
    inputs: Sequence[tf.Tensor],
    upsampling: LinearUpsampling,
    domain: int,
) -> tuple[list[_Group], list[_Group]]:
    """Returns the channel groups of inputs at full size, and those of the others."""
    sizes, groups = [], []
    for tensor, factors in zip(inputs, upsampling.factors, strict=True):
        channels = tensor.shape[-1]
        is_full = max(factors) == 1
        num_groups = 1 if is_full else -(-channels // MAX_CHANNELS_AT_ONCE)
        split = tf.split(tensor, _even_sizes(channels, num_groups), axis=-1)
        sizes += [group.shape[-1] for group in split]
        groups += [(group, factors) for group in split]
    split_axes = (
        (unit.depthwise.kernels[domain], -1),
        (unit.depthwise.biases[domain], -1),
        (unit.depthwise_norm.gammas[domain], -1),
        (unit.depthwise_norm.betas[domain], -1),
        (unit.pointwise.kernel, 3),
    )
    parameters = zip(
        *(tf.split(_cast_like(inputs, v), sizes, axis) for v, axis in split_axes),
        strict=True,
    )
    full_size: list[_Group] = []
    low_resolution: list[_Group] = []
    for (group, factors), own in zip(groups, parameters, strict=True):
        chosen = full_size if max(factors) == 1 else low_resolution
        chosen.append(((group, *own), factors))
    return full_size, low_resolution


def _even_sizes(channels: int, num_groups: int) -> list[int]:
    """Returns the sizes of the groups, which differ by at most one."""
    size, num_larger = divmod(channels, num_groups)
    return [size + 1] * num_larger + [size] * (num_groups - num_larger)


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


_RUN_BY_TYPE: Mapping[type[ConvUnit], Callable[..., tf.Tensor]] = {
    PlainUnit: _run_plain_or_series,
    SeparableUnit: _run_separable,
    SeriesUnit: _run_plain_or_series,
    ParallelUnit: _run_parallel,
}
