"""The universal network as a contender: ours, and the same in PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tools.bench.measuring import Task
from tools.bench.setting import (
    ADAM,
    BETA_2,
    Setting,
    build_torch,
    draw_batch,
    draw_parameter,
    to_torch,
)
from u2net_tf import machine


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
