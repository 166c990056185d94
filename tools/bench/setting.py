"""What the benchmarks of the network compute, without TensorFlow or this package.

Both networks fill every parameter with numbers drawn from its published name, and read
the same batch, so they compute the same from the first run on. NumPy is all that the
drawing needs, PyTorch its own network: a machine with a GPU may have nothing else.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

# The paper's five domains, as of `u2net_tf.complexity`: modalities and classes.
NUM_MODALITIES = (1, 1, 1, 2, 1)
NUM_CLASSES = (2, 2, 3, 3, 2)
# Of Adam, in both libraries.
BETA_2 = 0.999
ADAM = {"learning_rate": 3e-4, "weight_decay": 1e-5}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is computed.

    Attributes:
        patch_size: z, y, x.
        batch_size: patches.
        pools: how often z, y, x are halved.
        base_channels: at full resolution.
        num_modalities: of each domain.
        num_classes: of each domain, with background.
    """

    patch_size: tuple[int, int, int]
    batch_size: int = 2
    pools: tuple[int, int, int] = (5, 5, 5)
    base_channels: int = 16
    num_modalities: tuple[int, ...] = NUM_MODALITIES
    num_classes: tuple[int, ...] = NUM_CLASSES

    @property
    def architecture(self) -> dict[str, Any]:
        """Arguments of both networks."""
        names = ("num_modalities", "num_classes", "pools", "base_channels")
        return {name: getattr(self, name) for name in names}


def draw_parameter(name: str, shape: Sequence[int]) -> np.ndarray:
    """Numbers for a parameter, from its published name alone.

    Args:
        name: published; γ and β of a norm cannot be told from biases by it.
        shape: in PyTorch's layout. A kernel's numbers have the published deviation; a
            vector is near 1 if it is a weight (γ) and near 0 otherwise, never quite, so
            that every one of them counts.

    Returns:
        A float32 array.
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    numbers = generator.normal(size=tuple(shape))
    if len(shape) == 1:
        numbers = 0.1 * numbers + (1.0 if name.endswith("weight") else 0.0)
    else:
        numbers *= math.sqrt(2.0 / math.prod(shape[1:]))
    return numbers.astype(np.float32)


def draw_batch(setting: Setting, domain: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (N, D, H, W, M) float32 and labels (N, D, H, W) uint8 of a domain: noise.

    A label is likelier where the first modality is bright.
    """
    generator = np.random.default_rng(domain)
    size = (setting.batch_size, *setting.patch_size)
    image = generator.normal(size=(*size, setting.num_modalities[domain]))
    score = 0.5 * image[..., 0] + generator.normal(size=size)
    labels = np.digitize(score, np.arange(1, setting.num_classes[domain]))
    return image.astype(np.float32), labels.astype(np.uint8)


def build_torch(setting: Setting, layout: str):
    """PyTorch's network with the drawn parameters, in one of its layouts."""
    import torch

    from tools.bench.torch_network import TorchU2Net

    network = TorchU2Net(**setting.architecture)
    params = {
        name: torch.from_numpy(draw_parameter(name, value.shape))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(params, strict=True)
    return network.to(memory_format=memory_format(layout))


def memory_format(layout: str):
    """PyTorch's name of "channels_first" or "channels_last"."""
    import torch

    last = layout == "channels_last"
    return torch.channels_last_3d if last else torch.contiguous_format


def to_torch(image: np.ndarray, layout: str):
    """(N, D, H, W, C) as PyTorch's (N, C, D, H, W), in one of its layouts."""
    import torch

    tensor = torch.from_numpy(np.moveaxis(image, -1, 1))
    return tensor.contiguous(memory_format=memory_format(layout))
