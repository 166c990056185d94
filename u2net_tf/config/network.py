"""What a network is."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.errors import InputError
from u2net_tf.plan.limits import (
    MAX_DEPTH,
    BaseChannels,
    Depth,
    PoolsByAxis,
    require_network,
)
from u2net_tf.plan.sharp_grid import Gates

Adapter = Literal["separable", "series", "parallel", "none"]
Architecture = Literal["u2net", "unet_sharp"]
# What models on disk and `U2Net` call each `last_decoder_kernel`, and the reverse.
KERNEL_TO_SECOND_UP_CONV = {3: "full", 1: "pointwise"}
SECOND_UP_CONV_TO_KERNEL = {
    name: kernel for kernel, name in KERNEL_TO_SECOND_UP_CONV.items()
}
ARCHITECTURE: Any = Field("u2net", description="3D U²-Net, or UNet# (unet_sharp).")
DEPTH = Field(
    None,
    description=f"Levels of unet_sharp below full resolution, 1 to {MAX_DEPTH}, each "
    f"with twice the channels; {MAX_DEPTH} if not given. No axis is halved more often.",
)


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


class U2NetConfig(SizeConfig):
    """What a `U2Net` is made of."""

    adapter: Adapter = Field(
        "separable", description="What the stride-1 convolutions are made of."
    )

    def options(self) -> dict[str, Any]:
        """Arguments of `ModelSpec` and `U2Net`, besides the pools."""
        return {"adapter": self.adapter, **super().options()}


class NetworkConfig(U2NetConfig):
    """What a network is made of, whatever its architecture."""

    architecture: Architecture = ARCHITECTURE
    depth: Depth | None = DEPTH
    align_corners: bool = Field(
        False,
        description="Whether linear up-sampling in unet_sharp keeps the centres of the "
        "outermost voxels in place, as the official code does, instead of their outer "
        "faces.",
    )
    gates: Gates = Field(
        "none",
        description="Classification-guided modules of unet_sharp, which learn whether "
        "a patch holds a class at all: on X^{L,0} (deep), on X^{0,L} (top) or both, "
        "for each depth L. They change a prediction if `gate_threshold` is given.",
    )

    def options(self) -> dict[str, Any]:
        """Arguments of `ModelSpec`, besides the pools.

        Raises:
          InputError: if a setting does not fit the architecture.
        """
        _require_unset(
            self,
            align_corners=self.align_corners or None,
            gates=None if self.gates == "none" else self.gates,
        )
        return {
            "architecture": self.architecture,
            "depth": sharp_depth(self),
            "align_corners": self.align_corners,
            "gates": self.gates,
            **super().options(),
        }


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
    architecture: Architecture = ARCHITECTURE
    depth: Depth | None = DEPTH
    json_: bool = Field(False, description="Print JSON, with every domain by name.")

    def options(self) -> dict[str, Any]:
        """Arguments of `parameter_report.report`, besides pools and adapter.

        Raises:
          InputError: if a setting does not fit the architecture.
        """
        _require_unset(self)
        return {"depth": sharp_depth(self), **super().options()}


def sharp_depth(config: NetworkConfig | ComplexityConfig) -> int | None:
    """Returns the depth of a UNet#; None for another architecture."""
    is_sharp = config.architecture == "unet_sharp"
    return (config.depth or MAX_DEPTH) if is_sharp else None


def _require_unset(config: NetworkConfig | ComplexityConfig, **others: object) -> None:
    """Raises InputError if a setting of another architecture is set."""
    wrong = {"depth": config.depth, **others}
    if config.architecture == "unet_sharp":
        wrong = {"last_decoder_kernel": config.last_decoder_kernel}
    for name, value in wrong.items():
        if value is not None:
            raise InputError(
                f"`{name}`",
                expected=f"none, as `architecture` is {config.architecture}",
                received=value,
            )
