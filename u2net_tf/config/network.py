"""What a network is."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.plan.limits import BaseChannels, PoolsByAxis, require_network

Adapter = Literal["separable", "series", "parallel", "none"]
# What models on disk and `U2Net` call each `last_decoder_kernel`, and the reverse.
KERNEL_TO_SECOND_UP_CONV = {3: "full", 1: "pointwise"}
SECOND_UP_CONV_TO_KERNEL = {
    name: kernel for kernel, name in KERNEL_TO_SECOND_UP_CONV.items()
}


class SizeConfig(Config):
    """How large a network is, whatever its adapter."""

    base_channels: BaseChannels = Field(16, description="Channels at full resolution.")
    pools: PoolsByAxis | None = Field(
        None,
        description="How often z, y, x are halved; the plan's, for a single domain, if "
        "empty.",
    )
    last_decoder_kernel: Literal[3, 1] | None = Field(
        None,
        description="Edge of the last convolution of a decoder block; by default 3 "
        "where the adapter is separable and 1 elsewhere, as published.",
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.pools is not None:
            require_network(self.base_channels, self.pools)
        return self

    def options(self) -> dict[str, Any]:
        """Arguments of `ModelSpec` and `U2Net`, besides pools and adapter."""
        kernel = self.last_decoder_kernel
        return {
            "base_channels": self.base_channels,
            "second_up_conv": kernel and KERNEL_TO_SECOND_UP_CONV[kernel],
        }


class NetworkConfig(SizeConfig):
    """What a network is made of."""

    adapter: Adapter = Field(
        "separable", description="What the stride-1 convolutions are made of."
    )

    def options(self) -> dict[str, Any]:
        """Arguments of `ModelSpec` and `U2Net`, besides the pools."""
        return {"adapter": self.adapter, **super().options()}


class ComplexityConfig(SizeConfig):
    """Settings of `u2net_tf.complexity`."""

    plan: str | None = Field(
        None,
        description="Output of data_prep.plan; the paper's five domains if not given.",
    )
    domains: tuple[str, ...] = Field(
        (), description="Domains of the plan; all if empty."
    )
    adapter: Adapter | None = Field(
        None, description="The only universal network to count; each if not given."
    )
    json_: bool = Field(False, description="Print JSON, with every domain by name.")
