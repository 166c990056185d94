"""UNet# in plain PyTorch, literally by its formula: up-sample, concatenate, convolve.

This is the reference of the benchmarks. Parameters have the names of our variables,
with dots and without the index of the domain. Axes are in PyTorch's order (N, C, D, H,
W).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from u2net_tf.plan.sharp_grid import head_places, node_places, sources

NEGATIVE_SLOPE = 0.01


def _norm(channels: int) -> nn.Module:
    return nn.InstanceNorm3d(channels, eps=1e-5, affine=True)


class _Unit(nn.Module):
    """Convolution, or depthwise · norm · LeakyReLU · pointwise; norm · LeakyReLU."""

    def __init__(self, in_channels: int, filters: int, separable: bool):
        super().__init__()
        self.separable = separable
        if separable:
            self.depthwise = nn.Conv3d(
                in_channels, in_channels, 3, padding=1, groups=in_channels
            )
            self.depthwise_norm = _norm(in_channels)
            self.pointwise = nn.Conv3d(in_channels, filters, 1)
        else:
            self.conv = nn.Conv3d(in_channels, filters, 3, padding=1)
        self.norm = _norm(filters)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.separable:
            hidden = self.depthwise_norm(self.depthwise(inputs))
            hidden = self.pointwise(functional.leaky_relu(hidden, NEGATIVE_SLOPE))
        else:
            hidden = self.conv(inputs)
        return functional.leaky_relu(self.norm(hidden), NEGATIVE_SLOPE)


class TorchUNetSharp(nn.Module):
    """UNet# of one domain.

    Args:
        num_modalities: input channels.
        num_classes: classes including background.
        depth: levels below full resolution; each halves all axes.
        base_channels: channels at full resolution, doubled at each level.
        separable: whether the units of the nodes are separable.
    """

    def __init__(
        self,
        num_modalities: int,
        num_classes: int,
        *,
        depth: int = 4,
        base_channels: int = 16,
        separable: bool = False,
    ):
        super().__init__()
        self.depth = depth
        channels = [base_channels * 2**level for level in range(depth + 1)]
        self.stem = _Unit(num_modalities, base_channels, separable=False)
        for place in node_places(depth):
            level = place[0]
            width = sum(channels[source[0]] for source in sources(place))
            units = [
                _Unit(width or base_channels, channels[level], separable),
                _Unit(channels[level], channels[level], separable),
            ]
            # The first unit of X^{0,0} is the stem.
            modules = {f"unit_{n}": unit for n, unit in enumerate(units, start=1)}
            if place == (0, 0):
                del modules["unit_2"]
            self.add_module(_name("node", place), nn.ModuleDict(modules))
        for place in head_places(depth, True):
            size = 3 if place[0] else 1
            head = nn.Conv3d(channels[place[0]], num_classes, size, padding=size // 2)
            self.add_module(_name("head", place), head)

    def forward(self, inputs: torch.Tensor, heads) -> list[torch.Tensor]:
        """Maps (N, M, D, H, W) to the logits (N, K, D, H, W) of these heads."""
        hidden, maps = self.stem(inputs), {}
        for place in node_places(self.depth):
            read = [
                self._resized(maps[source], place[0] - source[0])
                for source in sources(place)
            ]
            hidden = torch.cat(read, dim=1) if read else hidden
            for unit in getattr(self, _name("node", place)).values():
                hidden = unit(hidden)
            maps[place] = hidden
        return [
            self._resized(getattr(self, _name("head", place))(maps[place]), -place[0])
            for place in heads
        ]

    def _resized(self, inputs: torch.Tensor, halvings: int) -> torch.Tensor:
        if halvings > 0:
            return functional.max_pool3d(inputs, 2**halvings)
        if halvings == 0:
            return inputs
        return functional.interpolate(
            inputs, scale_factor=2**-halvings, mode="trilinear"
        )


def _name(kind: str, place: tuple[int, int]) -> str:
    return f"{kind}_{place[0]}_{place[1]}"
