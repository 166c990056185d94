"""The separable 3D U²-Net in plain PyTorch, as in the published code.

This is the reference of the benchmarks. It was written for them from the same
description as our network and uses the published names, so that `load_state_dict`
accepts published weights. Axes are in PyTorch's order (N, C, D, H, W). Activations are
not in place, so that a step at 2 × 64³ takes as much memory as the published code: 2.6
GB; in place it would take 2.1 GB and be no faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

NEGATIVE_SLOPE = 0.01
# Deep supervision reads decoder levels 2 and 1, in this order.
DEEP_SUPERVISION_LEVELS = (2, 1)


def _activation() -> nn.Module:
    return nn.LeakyReLU(NEGATIVE_SLOPE)


def _norm(channels: int) -> nn.Module:
    return nn.InstanceNorm3d(channels, eps=1e-5, affine=True)


class _Named(nn.Module):
    """Container of modules under their published names."""

    def __init__(self, **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class _ConvBlock(nn.Module):
    """Convolution · norm · LeakyReLU of one domain: stem and deep supervision."""

    def __init__(self, in_channels: int, filters: int, kernel_size: int):
        super().__init__()
        self.op1 = nn.Sequential(
            nn.Conv3d(in_channels, filters, kernel_size, padding=kernel_size // 2),
            nn.Sequential(_norm(filters), _activation()),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.op1(inputs)


class _Adapter(nn.Module):
    """Depthwise convolution · norm · LeakyReLU of one domain."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.op1 = nn.Sequential(_norm(channels), _activation())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.op1(self.conv1(inputs))


class _SeparableUnit(nn.Module):
    """Adapter of the domain · shared pointwise convolution · norm of the domain."""

    def __init__(self, in_channels: int, filters: int, num_domains: int):
        super().__init__()
        self.adapOps = nn.ModuleList(_Adapter(in_channels) for _ in range(num_domains))
        self.pwise = _Named(conv1=nn.Conv3d(in_channels, filters, 1))
        self.op = nn.ModuleList(_norm(filters) for _ in range(num_domains))

    def forward(self, inputs: torch.Tensor, domain: int) -> torch.Tensor:
        return self.op[domain](self.pwise.conv1(self.adapOps[domain](inputs)))


class _StridedUnit(nn.Module):
    """Shared 3×3×3 convolution with strides · norm of the domain."""

    def __init__(
        self,
        in_channels: int,
        filters: int,
        strides: Sequence[int],
        num_domains: int,
    ):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, filters, 3, stride=tuple(strides))
        self.op = nn.ModuleList(_norm(filters) for _ in range(num_domains))
        # `functional.pad` starts with the last axis.
        self.padding = [
            size
            for stride in reversed(strides)
            for size in ((0, 1) if stride == 2 else (1, 1))
        ]

    def forward(self, inputs: torch.Tensor, domain: int) -> torch.Tensor:
        return self.op[domain](self.conv(functional.pad(inputs, self.padding)))


class TorchU2Net(nn.Module):
    """Universal 3D U²-Net with separable convolutions.

    Args:
        num_modalities: Input channels of each domain.
        num_classes: Classes of each domain, including background.
        pools: Number of times D, H and W are halved.
        base_channels: Channels at full resolution; each level has twice as many.
    """

    def __init__(
        self,
        num_modalities: Sequence[int],
        num_classes: Sequence[int],
        *,
        pools: Sequence[int] = (5, 5, 5),
        base_channels: int = 16,
    ):
        super().__init__()
        num_domains, num_levels = len(num_modalities), max(pools)
        channels = [base_channels * 2**level for level in range(num_levels + 1)]
        self.strides = [
            tuple(2 if level < count else 1 for count in pools)
            for level in range(num_levels)
        ]
        self.supervised = [
            level for level in DEEP_SUPERVISION_LEVELS if level < num_levels
        ]

        def unit(in_channels: int, filters: int) -> nn.Module:
            return _SeparableUnit(in_channels, filters, num_domains)

        self.in_tr_list = nn.ModuleList(
            _ConvBlock(modalities, base_channels, 3) for modalities in num_modalities
        )
        self.down_blocks = nn.ModuleList(
            _Named(op1=unit(width, width), op2=unit(width, width)) for width in channels
        )
        self.down_samps = nn.ModuleList(
            _Named(op1=_StridedUnit(width, 2 * width, strides, num_domains))
            for width, strides in zip(channels[:-1], self.strides, strict=True)
        )
        self.up_samps = nn.ModuleList(
            _Named(op=unit(2 * width, width)) for width in channels[:-1]
        )
        self.up_blocks = nn.ModuleList(
            _Named(op1=unit(2 * width, width), op2=unit(width, width))
            for width in channels[:-1]
        )
        self.dSupers = nn.ModuleList(
            nn.ModuleList(
                _ConvBlock(channels[level], count, 1) for count in num_classes
            )
            for level in self.supervised
        )
        self.out_tr_list = nn.ModuleList(
            _Named(conv1=nn.Conv3d(base_channels, count, 1)) for count in num_classes
        )
        self.activation = _activation()

    def forward(self, inputs: torch.Tensor, domain: int) -> torch.Tensor:
        """Maps (N, M, D, H, W) to logits (N, K, D, H, W) of `domain`."""
        hidden = self.in_tr_list[domain](inputs)
        skips = []
        for level, block in enumerate(self.down_blocks):
            if level > 0:
                unit = self.down_samps[level - 1].op1
                hidden = self.activation(unit(hidden, domain))
            inner = self.activation(block.op1(hidden, domain))
            hidden = self.activation(block.op2(inner, domain) + hidden)
            skips.append(hidden)
        deep = None
        for level in reversed(range(len(self.up_blocks))):
            block = self.up_blocks[level]
            hidden = self._upsample(hidden, level)
            hidden = self.activation(self.up_samps[level].op(hidden, domain))
            hidden = torch.cat([hidden, skips[level]], dim=1)
            hidden = self.activation(block.op1(hidden, domain))
            hidden = self.activation(block.op2(hidden, domain))
            if deep is not None:
                deep = self._upsample(deep, level)
            if level in self.supervised:
                own = self.dSupers[self.supervised.index(level)][domain](hidden)
                deep = own if deep is None else own + deep
        logits = self.out_tr_list[domain].conv1(hidden)
        return logits if deep is None else logits + deep

    def _upsample(self, inputs: torch.Tensor, level: int) -> torch.Tensor:
        return functional.interpolate(
            inputs, scale_factor=self.strides[level], mode="nearest"
        )


def segmentation_loss(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Returns Lovász-Softmax plus focal loss with γ = 2 and a detached focal factor.

    Args:
        labels: Integers (N, D, H, W).
        logits: (N, K, D, H, W).
    """
    num_classes = logits.shape[1]
    voxel_logits = logits.movedim(1, -1).reshape(-1, num_classes)
    voxel_labels = labels.reshape(-1).long()
    log_probabilities = functional.log_softmax(voxel_logits, dim=1)
    own = log_probabilities.gather(1, voxel_labels[:, None])[:, 0]
    focal = ((1 - own.detach().exp()) ** 2 * -own).mean()
    return _lovasz_softmax(voxel_labels, log_probabilities.exp()) + focal


def _lovasz_softmax(labels: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    losses = []
    for index in range(probabilities.shape[1]):
        foreground = (labels == index).to(probabilities.dtype)
        errors = (foreground - probabilities[:, index]).abs()
        ordered, order = torch.sort(errors, descending=True)
        losses.append(torch.dot(ordered, _jaccard_steps(foreground[order])))
    return torch.stack(losses).mean()


def _jaccard_steps(foreground: torch.Tensor) -> torch.Tensor:
    """Returns the increments of the Jaccard loss; algorithm 1 of Berman et al."""
    total = foreground.sum()
    intersection = total - foreground.cumsum(0)
    union = total + (1 - foreground).cumsum(0)
    losses = 1 - intersection / union
    losses[1:] -= losses[:-1].clone()
    return losses
