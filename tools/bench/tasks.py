"""Tasks of forward passes and training steps of our and PyTorch networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tools.bench.measuring import Task
from tools.bench.setting import ADAM, BETA_2


def our_forward(network: Any, image: np.ndarray) -> Task:
    """Returns the task of a forward pass of domain 0, compiled as for prediction."""
    import tensorflow as tf

    image = tf.constant(image)

    @tf.function
    def forward(image):
        return network(image, domain=0, training=False)

    return Task(lambda: forward(image), lambda logits: {"logits": logits.numpy()})


def torch_forward(run: Callable[[], Any]) -> Task:
    """Returns the task of a forward pass in PyTorch; `run` returns the logits."""
    import torch

    def forward():
        with torch.inference_mode():
            return run()

    return Task(forward, lambda logits: {"logits": np.moveaxis(logits.numpy(), 1, -1)})


def our_steps(
    trainer: Any, batches: Sequence[tuple[int, tuple[np.ndarray, np.ndarray]]]
) -> Task:
    """Returns the task of training steps on alternating (domain, (images, labels))."""
    import tensorflow as tf

    turns = itertools.cycle(
        [
            (domain, {"image": tf.constant(image), "labels": tf.constant(labels)})
            for domain, (image, labels) in batches
        ]
    )

    def results(loss):
        moments = [v for each in trainer.optimizers for v in each._velocities]
        return _loss_and_gradient(loss, [moment.numpy() for moment in moments])

    return Task(lambda: trainer.step(*next(turns)), results)


def torch_steps(network: Any, losses: Sequence[Callable[[], Any]]) -> Task:
    """Returns the task of training steps with alternating losses and one Adam."""
    import torch

    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=ADAM["learning_rate"],
        weight_decay=ADAM["weight_decay"],
    )
    turns = itertools.cycle(losses)

    def step():
        optimizer.zero_grad()
        loss = next(turns)()
        loss.backward()
        optimizer.step()
        return loss.item()

    def results(loss):
        states = optimizer.state.values()
        return _loss_and_gradient(loss, [each["exp_avg_sq"].numpy() for each in states])

    return Task(step, results)


def _loss_and_gradient(loss: float, second_moments: Sequence[np.ndarray]):
    """Returns the first loss and its gradient norm, from Adam's second moments."""
    squares = sum(float(moment.sum(dtype=float)) for moment in second_moments)
    return {
        "loss": np.asarray(loss),
        "gradient norm": np.sqrt(squares / (1 - BETA_2)),
    }
