"""Setting, parameters and batches of the network benchmarks, without TensorFlow.

In the Keras and in the PyTorch network, every parameter is drawn from a generator
seeded by its published name, and both read the same batch, so that their results agree
from the first run. Only NumPy is needed, and PyTorch for the PyTorch network, because
machines with a GPU may have nothing else.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

# Modalities and classes of the paper's five domains, as in `u2net_tf.complexity`.
NUM_MODALITIES = (1, 1, 1, 2, 1)
NUM_CLASSES = (2, 2, 3, 3, 2)
# Settings of Adam in both libraries.
BETA_2 = 0.999
ADAM = {"learning_rate": 3e-4, "weight_decay": 1e-5}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Architecture and size of a benchmark.

    Attributes:
        patch_size: z, y, x in voxels.
        batch_size: patches per batch.
        pools: number of times z, y, x are halved.
        base_channels: channels at full resolution.
        num_modalities: modalities of each domain.
        num_classes: classes of each domain, including background.
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
    """Draws a parameter from a generator seeded by its published name.

    Kernels have the published standard deviation. Vectors are near 1 if the name ends
    in "weight" (γ of a norm) and near 0 otherwise, but not equal to it, so that each of
    them affects the result.

    Args:
        name: published name.
        shape: shape in PyTorch's layout.

    Returns:
        A float32 array.
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = generator.normal(size=tuple(shape))
    if len(shape) == 1:
        values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
    else:
        values *= math.sqrt(2.0 / math.prod(shape[1:]))
    return values.astype(np.float32)


def draw_batch(setting: Setting, domain: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws an image (N, D, H, W, M) float32 of noise and labels (N, D, H, W) uint8.

    Higher labels are more likely where the first modality is bright.
    """
    generator = np.random.default_rng(domain)
    size = (setting.batch_size, *setting.patch_size)
    image = generator.normal(size=(*size, setting.num_modalities[domain]))
    score = 0.5 * image[..., 0] + generator.normal(size=size)
    labels = np.digitize(score, np.arange(1, setting.num_classes[domain]))
    return image.astype(np.float32), labels.astype(np.uint8)


def build_torch(setting: Setting, layout: str):
    """Builds the PyTorch network with the drawn parameters, in a memory layout."""
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
    """Returns the memory format of "channels_first" or "channels_last"."""
    import torch

    last = layout == "channels_last"
    return torch.channels_last_3d if last else torch.contiguous_format


def to_torch(image: np.ndarray, layout: str):
    """Converts (N, D, H, W, C) to PyTorch's (N, C, D, H, W), in a memory layout."""
    import torch

    tensor = torch.from_numpy(np.moveaxis(image, -1, 1))
    return tensor.contiguous(memory_format=memory_format(layout))
