"""The universal network as a contender: ours, and its equivalent in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.bench import tasks
from tools.bench.measuring import Task
from tools.bench.setting import (
    ADAM,
    Setting,
    build_torch,
    draw_batch,
    draw_parameter,
    to_torch,
)
from u2net_tf import machine


def build_ours(setting: Setting, **options: Any):
    """Builds our network with the drawn parameters.

    Args:
        setting: architecture and size.
        **options: additional arguments of `U2Net`.
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


def make_our_forward(setting: Setting) -> Task:
    """Returns the task of a forward pass of domain 0."""
    return tasks.our_forward(build_ours(setting), draw_batch(setting, 0)[0])


def make_torch_forward(setting: Setting, layout: str) -> Task:
    """Returns the task of a forward pass of domain 0 in PyTorch."""
    network = build_torch(setting, layout).eval()
    image = to_torch(draw_batch(setting, 0)[0], layout)
    return tasks.torch_forward(lambda: network(image, 0))


def make_our_steps(
    setting: Setting,
    domains: Sequence[int] = (0,),
    options: Mapping[str, Any] | None = None,
) -> Task:
    """Returns the task of training steps of alternating domains with our `Trainer`.

    The focal factor is detached, as in the published code.
    """
    network = build_ours(setting, **(options or {}))
    from u2net_tf.training.step import Trainer

    trainer = Trainer(network, detach_focal_factor=True, **ADAM)
    return tasks.our_steps(
        trainer, [(each, draw_batch(setting, each)) for each in domains]
    )


def make_torch_steps(
    setting: Setting, layout: str, domains: Sequence[int] = (0,)
) -> Task:
    """Returns the task of training steps of alternating domains with one Adam."""
    import torch

    from tools.bench.torch_network import segmentation_loss

    network = build_torch(setting, layout)

    def loss_of(domain):
        image, labels = draw_batch(setting, domain)
        image, labels = to_torch(image, layout), torch.from_numpy(labels)
        return lambda: segmentation_loss(labels, network(image, domain))

    return tasks.torch_steps(network, [loss_of(domain) for domain in domains])
