"""A node of UNet#: convolution units that read feature maps of several levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from u2net_tf.networks.arguments import (
    check_positive_integer,
    check_positive_integers,
)
from u2net_tf.networks.conv_units import UNITS, check_adapter
from u2net_tf.networks.gradient_checkpointing import (
    call_checkpointed,
    check_gradient_checkpointing,
)
from u2net_tf.networks.layers import DomainLayer
from u2net_tf.networks.upsampled_units import LinearUpsampling, run_upsampled


@keras.saving.register_keras_serializable(package="u2net_tf")
class SharpNode(DomainLayer):
    """Convolution units that read several up-sampled inputs as if concatenated.

    Args:
      in_channels: Number of channels of each input.
      filters: Number of output channels.
      num_domains: Number of domains.
      upsample: For each input three integers, the factors of linear up-sampling along
        D, H, W; None if all inputs have the size of the output.
      num_units: Number of units.
      adapter: "separable", "series", "parallel" or "none".
      align_corners: See `ops.upsample_linear`.
      gradient_checkpointing: "none", or "blocks" to keep only the inputs of the units
        for the backward pass, before up-sampling.
      **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
      ValueError: If `adapter` or `gradient_checkpointing` is not one of these, or
        `upsample` does not have one entry per input.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        filters: int,
        num_domains: int,
        *,
        upsample: Sequence[Sequence[int]] | None = None,
        num_units: int = 2,
        adapter: str = "separable",
        align_corners: bool = False,
        gradient_checkpointing: str = "none",
        **kwargs: Any,
    ):
        super().__init__(num_domains, **kwargs)
        self.in_channels = check_positive_integers("in_channels", in_channels)
        self.filters = check_positive_integer("filters", filters)
        if upsample is None:
            upsample = ((1, 1, 1),) * len(self.in_channels)
        self.upsample = tuple(
            check_positive_integers("upsample", factors, length=3)
            for factors in upsample
        )
        if len(self.upsample) != len(self.in_channels):
            raise ValueError(
                "`upsample` must have one entry per input. "
                f"Received: in_channels={self.in_channels}, upsample={self.upsample}"
            )
        self.num_units = check_positive_integer("num_units", num_units)
        self.adapter = check_adapter(adapter)
        self.align_corners = align_corners
        self.upsampling = LinearUpsampling(self.upsample, align_corners)
        self.gradient_checkpointing = check_gradient_checkpointing(
            gradient_checkpointing
        )
        widths = (sum(self.in_channels), *(self.filters,) * (self.num_units - 1))
        self.units = [
            self.add_part(
                UNITS[adapter](
                    width,
                    self.filters,
                    self.num_domains,
                    dtype=self.dtype_policy,
                    name=f"unit_{number}",
                )
            )
            for number, width in enumerate(widths, start=1)
        ]

    def call(self, *inputs: tf.Tensor, domain: int) -> tf.Tensor:
        """Maps inputs (N, D/f, H/f, W/f, C) to (N, D, H, W, filters)."""
        self.check_domain(domain)
        first, *others = self.units

        def run_first(*tensors: tf.Tensor) -> tf.Tensor:
            return run_upsampled(first, tensors, self.upsampling, domain=domain)

        if self.gradient_checkpointing == "none":
            hidden = run_first(*inputs)
            for unit in others:
                hidden = unit(hidden, domain=domain)
            return hidden
        hidden = call_checkpointed(run_first, first.variables_used_by(domain), *inputs)
        for unit in others:

            def run(hidden: tf.Tensor, unit: DomainLayer = unit) -> tf.Tensor:
                return unit(hidden, domain=domain)

            hidden = call_checkpointed(run, unit.variables_used_by(domain), hidden)
        return hidden

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.in_channels,
            "filters": self.filters,
            "num_domains": self.num_domains,
            "upsample": self.upsample,
            "num_units": self.num_units,
            "adapter": self.adapter,
            "align_corners": self.align_corners,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
