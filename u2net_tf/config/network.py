"""Settings of the network."""

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
    require_depth,
    require_network,
)
from u2net_tf.plan.sharp_grid import Gates

Adapter = Literal["separable", "series", "parallel", "none"]
Architecture = Literal["u2net", "unet_sharp"]
# Name of each `last_decoder_kernel` in model files and `U2Net`, and the reverse.
KERNEL_TO_SECOND_UP_CONV = {3: "full", 1: "pointwise"}
SECOND_UP_CONV_TO_KERNEL = {
    name: kernel for kernel, name in KERNEL_TO_SECOND_UP_CONV.items()
}
ARCHITECTURE: Any = Field(
    "u2net", description="3D U²-Net (u2net) or UNet# (unet_sharp)."
)
DEPTH = Field(
    None,
    description=f"Levels of a UNet# below full resolution (1 to {MAX_DEPTH}), each "
    f"with twice the channels of the level above; {MAX_DEPTH} if not given. No axis "
    "can be halved more than depth times.",
)
PRUNE_TO = Field(
    None,
    description="Depth L to which a UNet# is pruned, keeping the head on X^{0,L} and "
    "the nodes that it needs; the complete network if not given.",
)
GATES: Any = Field(
    "none",
    description="Classification-guided modules of a UNet#, which learn whether a class "
    "is present in a patch: on X^{L,0} (deep), on X^{0,L} (top) or both, for each "
    "depth L. They affect predictions only if a gate_threshold is given.",
)


class SizeConfig(Config):
    """Size of a network, independent of its adapters."""

    base_channels: BaseChannels = Field(
        16, description="Number of channels at full resolution."
    )
    pools: PoolsByAxis | None = Field(
        None,
        description="Number of times that the network halves each axis (z,y,x); if "
        "empty, the numbers in the plan, which must be the same for all domains.",
    )
    last_decoder_kernel: Literal[3, 1] | None = Field(
        None,
        description="Kernel size of the last convolution of each decoder block; if not "
        "given, 3 with separable adapters and 1 otherwise, as published.",
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.pools is not None:
            require_network(self.base_channels, self.pools)
        return self

    def options(self) -> dict[str, Any]:
        """Returns arguments of `ModelSpec` and `U2Net`, except pools and adapter."""
        kernel = self.last_decoder_kernel
        return {
            "base_channels": self.base_channels,
            "second_up_conv": kernel and KERNEL_TO_SECOND_UP_CONV[kernel],
        }


class U2NetConfig(SizeConfig):
    """Size and adapters of a `U2Net`."""

    adapter: Adapter = Field(
        "separable",
        description="Type of the stride-1 convolutions: separable (depthwise per "
        "domain, pointwise shared), shared with series or parallel adapters per "
        "domain, or shared without adapters (none).",
    )

    def options(self) -> dict[str, Any]:
        """Returns arguments of `ModelSpec` and `U2Net`, except pools."""
        return {"adapter": self.adapter, **super().options()}


class NetworkConfig(U2NetConfig):
    """Settings of a network of any architecture."""

    architecture: Architecture = ARCHITECTURE
    depth: Depth | None = DEPTH
    align_corners: bool = Field(
        False,
        description="Align the centres of the outermost voxels, instead of their outer "
        "faces, in the linear upsampling of a UNet#, as the official code does.",
    )
    gates: Gates = GATES

    def options(self) -> dict[str, Any]:
        """Returns arguments of `ModelSpec`, except pools.

        Raises:
          InputError: if a setting does not fit the architecture.
        """
        _require_unset(self, align_corners=self.align_corners or None)
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
        description="Plan written by data_prep.plan; the paper's five domains if not "
        "given.",
    )
    domains: tuple[str, ...] = Field(
        (), description="Domains of the plan to count; all if empty."
    )
    pools: PoolsByAxis | None = Field(
        None,
        description="Number of times that the joint networks halve each axis (z,y,x); "
        "if empty, the depth of a UNet#; otherwise the numbers in the plan for a "
        "single domain, and 5,5,5 for several.",
    )
    adapter: Adapter | None = Field(
        None,
        description="Type of the stride-1 convolutions of the universal network to "
        "count; all types if not given.",
    )
    architecture: Architecture = ARCHITECTURE
    depth: Depth | None = DEPTH
    gates: Gates = GATES
    json_: bool = Field(False, description="Print JSON that lists each domain by name.")

    @pydantic.model_validator(mode="after")
    def _check_depth(self) -> Self:
        require_pools_within_depth(self)
        return self

    def options(self) -> dict[str, Any]:
        """Returns arguments of `parameter_report.report`, except pools and adapter.

        Raises:
          InputError: if a setting does not fit the architecture.
        """
        _require_unset(self)
        return {"depth": sharp_depth(self), "gates": self.gates, **super().options()}


def sharp_depth(config: NetworkConfig | ComplexityConfig) -> int | None:
    """Returns the depth of a UNet#; None for other architectures."""
    is_sharp = config.architecture == "unet_sharp"
    return (config.depth or MAX_DEPTH) if is_sharp else None


def require_pools_within_depth(config: NetworkConfig | ComplexityConfig) -> None:
    """Raises InputError if a UNet# is too wide for its depth or its pools exceed it."""
    depth = sharp_depth(config)
    if depth is not None:
        require_depth(config.base_channels, config.pools or (depth,) * 3, depth)


def _require_unset(config: NetworkConfig | ComplexityConfig, **others: object) -> None:
    """Raises InputError if a setting of a different architecture is set."""
    gates = None if config.gates == "none" else config.gates
    wrong = {"depth": config.depth, "gates": gates, **others}
    if config.architecture == "unet_sharp":
        wrong = {"last_decoder_kernel": config.last_decoder_kernel}
    for name, value in wrong.items():
        if value is not None:
            raise InputError(
                f"`{name}`",
                expected=f"none, as `architecture` is {config.architecture}",
                received=value,
            )
