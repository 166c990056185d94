"""UNet# as a contender: ours, and its equivalent in PyTorch."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from tools.bench import tasks
from tools.bench.measuring import Task
from tools.bench.setting import (
    ADAM,
    Setting,
    draw_batch,
    draw_parameter,
    memory_format,
    to_torch,
)
from u2net_tf import machine
from u2net_tf.plan.sharp_grid import Place, head_places

ADAPTERS = ("none", "separable")
# Name of our variable -> name of PyTorch's parameter.
_TORCH_NAMES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}


@dataclasses.dataclass(frozen=True)
class SharpSetting:
    """Architecture and size of a benchmark of a network with one domain.

    Attributes:
        patch_size: z, y, x in voxels.
        batch_size: patches per batch.
        depth: levels below full resolution.
        base_channels: channels at full resolution.
        adapter: one of `ADAPTERS`.
        num_modalities: input channels.
        num_classes: classes including background.
    """

    patch_size: tuple[int, int, int]
    batch_size: int = 2
    depth: int = 4
    base_channels: int = 16
    adapter: str = "none"
    num_modalities: int = 1
    num_classes: int = 2

    @property
    def architecture(self) -> dict[str, Any]:
        """Arguments of `UNetSharp`."""
        return {
            "num_modalities": (self.num_modalities,),
            "num_classes": (self.num_classes,),
            "depth": self.depth,
            "base_channels": self.base_channels,
            "adapter": self.adapter,
        }

    @property
    def heads(self) -> tuple[Place, ...]:
        """Heads of the loss, all with the same weight."""
        return head_places(self.depth, True)

    def draw_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Draws a batch; see `setting.draw_batch`."""
        batch = Setting(
            self.patch_size,
            self.batch_size,
            num_modalities=(self.num_modalities,),
            num_classes=(self.num_classes,),
        )
        return draw_batch(batch, 0)


def torch_name(path: str) -> str:
    """Returns PyTorch's name of a variable of domain 0."""
    *parts, name = path.split("/")
    return ".".join([*parts, _TORCH_NAMES[re.sub(r"_0$", "", name)]])


def build_ours(setting: SharpSetting, **options: Any):
    """Builds our network with the drawn parameters.

    Args:
        setting: architecture and size.
        **options: additional arguments of `UNetSharp`.
    """
    machine.import_tensorflow()
    from u2net_tf.networks.unet_sharp import UNetSharp

    network = UNetSharp(**setting.architecture, **options)
    network.build()
    for path, variable in network.variables_by_path().items():
        shape = tuple(variable.shape)
        if len(shape) == 4:
            # Depthwise: one filter per channel.
            drawn = draw_parameter(torch_name(path), (shape[3], 1, *shape[:3]))
            drawn = np.moveaxis(drawn[:, 0], 0, -1)
        elif len(shape) == 5:
            drawn = draw_parameter(torch_name(path), (*shape[:2:-1], *shape[:3]))
            drawn = np.transpose(drawn, (2, 3, 4, 1, 0))
        else:
            drawn = draw_parameter(torch_name(path), shape)
        variable.assign(drawn)
    return network


def build_torch(setting: SharpSetting, layout: str):
    """Builds the PyTorch network with the drawn parameters in one of its layouts."""
    import torch

    from tools.bench.torch_sharp import TorchUNetSharp

    network = TorchUNetSharp(
        setting.num_modalities,
        setting.num_classes,
        depth=setting.depth,
        base_channels=setting.base_channels,
        separable=setting.adapter == "separable",
    )
    params = {
        name: torch.from_numpy(draw_parameter(name, value.shape))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(params, strict=True)
    return network.to(memory_format=memory_format(layout))


def make_our_forward(setting: SharpSetting) -> Task:
    """Returns the task of computing the logits of the last head."""
    return tasks.our_forward(build_ours(setting), setting.draw_batch()[0])


def make_torch_forward(setting: SharpSetting, layout: str) -> Task:
    """Returns the task of computing the logits of the last head in PyTorch."""
    network = build_torch(setting, layout).eval()
    image = to_torch(setting.draw_batch()[0], layout)
    last = [(0, setting.depth)]
    return tasks.torch_forward(lambda: network(image, last)[0])


def make_our_steps(setting: SharpSetting, gradient_checkpointing: str = "none") -> Task:
    """Returns the task of training steps with our `Trainer` and all heads."""
    network = build_ours(setting, gradient_checkpointing=gradient_checkpointing)
    from u2net_tf.training.step import Trainer

    weights = dict.fromkeys(setting.heads, 1 / len(setting.heads))
    trainer = Trainer(network, detach_focal_factor=True, head_weights=weights, **ADAM)
    return tasks.our_steps(trainer, [(0, setting.draw_batch())])


def make_torch_steps(setting: SharpSetting, layout: str) -> Task:
    """Returns the task of training steps in PyTorch with the same loss and Adam."""
    import torch

    from tools.bench.torch_network import segmentation_loss

    network = build_torch(setting, layout)
    image, labels = setting.draw_batch()
    image, labels = to_torch(image, layout), torch.from_numpy(labels)

    def mean_loss():
        losses = [
            segmentation_loss(labels, logits)
            for logits in network(image, setting.heads)
        ]
        return torch.stack(losses).mean()

    return tasks.torch_steps(network, [mean_loss])
