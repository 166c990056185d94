"""Forward passes and training steps of any network, ours or PyTorch's, as tasks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tools.bench.measuring import Task
from tools.bench.setting import ADAM, BETA_2


def our_forward(network: Any, image: np.ndarray) -> Task:
    """Forward pass of domain 0, compiled by `tf.function` as for prediction."""
    import tensorflow as tf

    image = tf.constant(image)

    @tf.function
    def forward(image):
        return network(image, domain=0, training=False)

    return Task(lambda: forward(image), lambda logits: {"logits": logits.numpy()})


def torch_forward(run: Callable[[], Any]) -> Task:
    """Forward pass of PyTorch's network; `run` returns its logits."""
    import torch

    def forward():
        with torch.inference_mode():
            return run()

    return Task(forward, lambda logits: {"logits": np.moveaxis(logits.numpy(), 1, -1)})


def our_steps(
    trainer: Any, batches: Sequence[tuple[int, tuple[np.ndarray, np.ndarray]]]
) -> Task:
    """Training steps by turns; of each a domain, images and labels."""
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
    """Training steps by turns, one Adam for all; of each what computes its loss."""
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
    """The first loss, and the norm of its gradient as Adam's second moments have it."""
    squares = sum(float(moment.sum(dtype=float)) for moment in second_moments)
    return {
        "loss": np.asarray(loss),
        "gradient norm": np.sqrt(squares / (1 - BETA_2)),
    }
