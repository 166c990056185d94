"""Convolution units whose inputs are up-sampled, without the up-sampled maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.conv_units import (
    ConvUnit,
    ParallelUnit,
    PlainUnit,
    SeriesUnit,
)
from u2net_tf.networks.ops.shapes import Factors


@dataclasses.dataclass(frozen=True)
class LinearUpsampling:
    """How the inputs of a unit are up-sampled.

    Attributes:
      factors: Of each input, along D, H, W.
      align_corners: See `ops.upsample_linear`.
    """

    factors: tuple[Factors, ...]
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
            kernel,
            bias,
            factors=self.factors,
            align_corners=self.align_corners,
        )


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
    if len(inputs) == 1 or type(unit) not in _RUN:
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
    pointwise, bias = map(
        tf.convert_to_tensor,
        (unit.adapter.kernels[domain], unit.adapter.biases[domain]),
    )
    around = [[size // 2] * 2 for size in unit.kernel_size]
    kernel = unit.conv.kernel + tf.pad(pointwise, [*around, [0, 0], [0, 0]])
    hidden = upsampling.convolve(inputs, kernel, unit.conv.bias + bias)
    return unit.norm(hidden, domain=domain)


_RUN: Mapping[type[ConvUnit], Callable[..., tf.Tensor]] = {
    PlainUnit: _run_plain,
    SeriesUnit: _run_series,
    ParallelUnit: _run_parallel,
}
