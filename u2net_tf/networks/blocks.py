"""Encoder and decoder blocks, built from convolution units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from u2net_tf.networks.arguments import (
    check_positive_integer,
    check_positive_integers,
)
from u2net_tf.networks.conv_units import UNITS, ConvUnit, PlainUnit, check_adapter
from u2net_tf.networks.gradient_checkpointing import (
    call_checkpointed,
    check_gradient_checkpointing,
)
from u2net_tf.networks.layers import (
    DomainConv3D,
    DomainLayer,
    DomainNorm,
    SharedConv3D,
)
from u2net_tf.networks.layers.normalization import NEGATIVE_SLOPE

SECOND_UP_CONVS = ("full", "pointwise")


def published_second_up_conv(adapter: str) -> str:
    """Returns the `second_up_conv` of the published code for an adapter."""
    return "full" if adapter == "separable" else "pointwise"


@keras.saving.register_keras_serializable(package="u2net_tf")
class DomainConvBlock(DomainLayer):
    """Per-domain convolution · norm · LeakyReLU, for stem and deep supervision.

    Args:
      in_channels_per_domain: Input channels of each domain.
      filters_per_domain: Output channels of each domain.
      kernel_size: Three integers, along D, H, W.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        in_channels_per_domain: Sequence[int],
        filters_per_domain: Sequence[int],
        *,
        kernel_size: Sequence[int] = (3, 3, 3),
        **kwargs: Any,
    ):
        super().__init__(num_domains=len(filters_per_domain), **kwargs)
        self.conv = self.add_part(
            DomainConv3D(
                in_channels_per_domain,
                filters_per_domain,
                kernel_size=kernel_size,
                dtype=self.dtype_policy,
                name="conv",
            )
        )
        self.norm = self.add_part(
            DomainNorm(
                filters_per_domain,
                negative_slope=NEGATIVE_SLOPE,
                dtype=self.dtype_policy,
                name="norm",
            )
        )

    def call(self, inputs: tf.Tensor, *, domain: int) -> tf.Tensor:
        """Maps (N, D, H, W, C) to (N, D, H, W, F), with C and F of `domain`."""
        return self.norm(self.conv(inputs, domain=domain), domain=domain)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels_per_domain": self.conv.in_channels_per_domain,
            "filters_per_domain": self.conv.filters_per_domain,
            "kernel_size": self.conv.kernel_size,
        }


class _UnitsBlock(DomainLayer):
    """Base class of blocks of units, with optional gradient checkpointing."""

    def __init__(self, num_domains: int, gradient_checkpointing: str, **kwargs: Any):
        super().__init__(num_domains, **kwargs)
        self.gradient_checkpointing = check_gradient_checkpointing(
            gradient_checkpointing
        )

    def _run(
        self,
        unit: ConvUnit,
        *inputs: tf.Tensor,
        domain: int,
        as_groups: bool = False,
    ) -> tf.Tensor:
        """Calls a unit; `as_groups` passes the inputs as a list of channel groups."""

        def run(*tensors: tf.Tensor) -> tf.Tensor:
            if as_groups:
                return unit(list(tensors), domain=domain)
            return unit(*tensors, domain=domain)

        if self.gradient_checkpointing == "none":
            return run(*inputs)
        return call_checkpointed(run, unit.variables_used_by(domain), *inputs)


@keras.saving.register_keras_serializable(package="u2net_tf")
class EncoderBlock(_UnitsBlock):
    """Two convolution units; the block's input is added before the last LeakyReLU.

    Args:
      channels: Input and output channels.
      num_domains: Number of domains.
      adapter: "separable", "series", "parallel" or "none".
      gradient_checkpointing: "none", or "blocks" to keep only the inputs of the units
        for the backward pass.
      **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
      ValueError: If `adapter` or `gradient_checkpointing` is not one of these.
    """

    def __init__(
        self,
        channels: int,
        num_domains: int,
        *,
        adapter: str = "separable",
        gradient_checkpointing: str = "none",
        **kwargs: Any,
    ):
        super().__init__(num_domains, gradient_checkpointing, **kwargs)
        self.channels = check_positive_integer("channels", channels)
        self.adapter = check_adapter(adapter)
        self.unit_1, self.unit_2 = (
            self.add_part(
                UNITS[adapter](
                    channels,
                    channels,
                    num_domains,
                    dtype=self.dtype_policy,
                    name=name,
                )
            )
            for name in ("unit_1", "unit_2")
        )

    def call(self, inputs: tf.Tensor, *, domain: int) -> tf.Tensor:
        """Maps (N, D, H, W, channels) to the same shape."""
        hidden = self._run(self.unit_1, inputs, domain=domain)
        return self._run(self.unit_2, hidden, inputs, domain=domain)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "num_domains": self.num_domains,
            "adapter": self.adapter,
            "gradient_checkpointing": self.gradient_checkpointing,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class DownSample(DomainLayer):
    """Shared strided 3×3×3 convolution · norm · LeakyReLU.

    Args:
      in_channels: Input channels.
      filters: Output channels.
      num_domains: Number of domains.
      strides: Three integers, along D, H, W.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        num_domains: int,
        *,
        strides: Sequence[int],
        **kwargs: Any,
    ):
        super().__init__(num_domains, **kwargs)
        self.in_channels = check_positive_integer("in_channels", in_channels)
        self.filters = check_positive_integer("filters", filters)
        self.strides = check_positive_integers("strides", strides, length=3)
        self.conv = self.add_part(
            SharedConv3D(
                self.in_channels,
                self.filters,
                self.num_domains,
                strides=self.strides,
                dtype=self.dtype_policy,
                name="conv",
            )
        )
        self.norm = self.add_part(
            DomainNorm(
                (self.filters,) * self.num_domains,
                negative_slope=NEGATIVE_SLOPE,
                dtype=self.dtype_policy,
                name="norm",
            )
        )

    def call(self, inputs: tf.Tensor, *, domain: int) -> tf.Tensor:
        """Maps (N, D, H, W, in_channels) to (N, D/sd, H/sh, W/sw, filters)."""
        return self.norm(self.conv(inputs, domain=domain), domain=domain)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.in_channels,
            "filters": self.filters,
            "num_domains": self.num_domains,
            "strides": self.strides,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class DecoderBlock(_UnitsBlock):
    """Up-sampling unit, concatenation with the skip connection, two units.

    Args:
      filters: Channels of the skip connection and of the output; the input has twice
        as many.
      num_domains: Number of domains.
      strides: Three integers, the up-sampling factors along D, H, W.
      adapter: "separable", "series", "parallel" or "none".
      second_up_conv: Kernel of the block's last unit: "full" 3×3×3, or "pointwise"
        1×1×1 (a separable unit then has no depthwise convolution).
      gradient_checkpointing: See `EncoderBlock`.
      **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
      ValueError: If `adapter`, `second_up_conv` or `gradient_checkpointing` is not one
        of these.
    """

    def __init__(
        self,
        filters: int,
        num_domains: int,
        *,
        strides: Sequence[int],
        adapter: str = "separable",
        second_up_conv: str = "full",
        gradient_checkpointing: str = "none",
        **kwargs: Any,
    ):
        super().__init__(num_domains, gradient_checkpointing, **kwargs)
        self.filters = check_positive_integer("filters", filters)
        self.strides = check_positive_integers("strides", strides, length=3)
        self.adapter = check_adapter(adapter)
        if second_up_conv not in SECOND_UP_CONVS:
            raise ValueError(
                f"`second_up_conv` must be one of {SECOND_UP_CONVS}. "
                f"Received: second_up_conv={second_up_conv!r}"
            )
        self.second_up_conv = second_up_conv
        self.up_unit = self._add_unit("up_unit", 2 * filters, upsample=self.strides)
        self.unit_1 = self._add_unit("unit_1", 2 * filters)
        if second_up_conv == "full":
            self.unit_2 = self._add_unit("unit_2", filters)
        else:
            unit = PlainUnit if adapter == "separable" else UNITS[adapter]
            self.unit_2 = self._add_unit(
                "unit_2", filters, unit=unit, kernel_size=(1, 1, 1)
            )

    def _add_unit(
        self,
        name: str,
        in_channels: int,
        *,
        unit: type[ConvUnit] | None = None,
        **options: Any,
    ) -> ConvUnit:
        """Adds a unit, by default of the type of the block's adapter."""
        return self.add_part(
            (unit or UNITS[self.adapter])(
                in_channels,
                self.filters,
                self.num_domains,
                dtype=self.dtype_policy,
                name=name,
                **options,
            )
        )

    def call(self, inputs: tf.Tensor, skip: tf.Tensor, *, domain: int) -> tf.Tensor:
        """Maps (N, d, h, w, 2 filters) and the skip to (N, D, H, W, filters)."""
        hidden = self._run(self.up_unit, inputs, domain=domain)
        hidden = self._run(self.unit_1, hidden, skip, domain=domain, as_groups=True)
        return self._run(self.unit_2, hidden, domain=domain)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_domains": self.num_domains,
            "strides": self.strides,
            "adapter": self.adapter,
            "second_up_conv": self.second_up_conv,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
