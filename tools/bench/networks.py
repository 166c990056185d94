"""The universal network as a contender: ours, and the same in PyTorch.

Both fill every parameter with numbers drawn from its published name, and read the same
batch, so they compute the same from the first run on.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tools.bench.measuring import Task
from u2net_tf import machine

# The paper's five domains, as in `networks.complexity`: modalities and classes.
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


def build_ours(setting: Setting, **options: Any):
    """Our network with the drawn parameters.

    Args:
        setting: what is computed.
        **options: of `U2Net`, besides.
    """
    machine.import_tensorflow()
    from u2net_tf.networks.u2net import U2Net
    from u2net_tf.published_weights import variables

    network = U2Net(**setting.architecture, **options)
    network.build()
    params = {
        name: draw_parameter(name, variables.torch_shape(variable, layout))
        for name, layout, variable in variables.published_variables(network)
    }
    variables.load_published_weights(network, params)
    return network


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


def make_our_forward(setting: Setting) -> Task:
    """Forward pass of domain 0, compiled by `tf.function` as for prediction."""
    network = build_ours(setting)
    import tensorflow as tf

    image = tf.constant(draw_batch(setting, 0)[0])

    @tf.function
    def forward(image):
        return network(image, domain=0, training=False)

    return Task(lambda: forward(image), lambda logits: {"logits": logits.numpy()})


def make_torch_forward(setting: Setting, layout: str) -> Task:
    """Forward pass of domain 0."""
    import torch

    network = build_torch(setting, layout).eval()
    image = to_torch(draw_batch(setting, 0)[0], layout)

    def forward():
        with torch.inference_mode():
            return network(image, 0)

    return Task(forward, lambda logits: {"logits": np.moveaxis(logits.numpy(), 1, -1)})


def make_our_steps(
    setting: Setting,
    domains: Sequence[int] = (0,),
    options: Mapping[str, Any] | None = None,
) -> Task:
    """Training steps of these domains by turns, by the `Trainer` that trains.

    The focal factor is detached: the published code does so.
    """
    network = build_ours(setting, **(options or {}))
    import tensorflow as tf

    from u2net_tf.training.step import Trainer

    trainer = Trainer(network, detach_focal_factor=True, **ADAM)
    batches = []
    for domain in domains:
        image, labels = draw_batch(setting, domain)
        batches.append({"image": tf.constant(image), "labels": tf.constant(labels)})
    turns = itertools.count()

    def step():
        turn = next(turns) % len(domains)
        return trainer.step(domains[turn], batches[turn])

    def results(loss):
        moments = [v for each in trainer.optimizers for v in each._velocities]
        return _loss_and_gradient(loss, [moment.numpy() for moment in moments])

    return Task(step, results)


def make_torch_steps(
    setting: Setting, layout: str, domains: Sequence[int] = (0,)
) -> Task:
    """Training steps of these domains by turns, as published: one Adam for all."""
    import torch

    from tools.bench.torch_network import segmentation_loss

    network = build_torch(setting, layout)
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=ADAM["learning_rate"],
        weight_decay=ADAM["weight_decay"],
    )
    batches = []
    for domain in domains:
        image, labels = draw_batch(setting, domain)
        batches.append((to_torch(image, layout), torch.from_numpy(labels)))
    turns = itertools.count()

    def step():
        turn = next(turns) % len(domains)
        image, labels = batches[turn]
        optimizer.zero_grad()
        loss = segmentation_loss(labels, network(image, domains[turn]))
        loss.backward()
        optimizer.step()
        return loss.item()

    def results(loss):
        states = optimizer.state.values()
        return _loss_and_gradient(loss, [each["exp_avg_sq"].numpy() for each in states])

    return Task(step, results)


def _loss_and_gradient(loss: float, second_moments: Sequence[np.ndarray]):
    """The first loss, and the norm of its gradient as Adam's second moments have it."""
    squares = sum(float(moment.sum(dtype=float)) for moment in second_moments)
    return {
        "loss": np.asarray(loss),
        "gradient norm": np.sqrt(squares / (1 - BETA_2)),
    }
