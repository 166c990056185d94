"""Modules of the loss and gradients, compared with the same operations one by one.

`test_isolation.py` and `test_one_module.py` train with them on two replicas.
"""

import math

import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.training.differentiation import Differentiation
from u2net_tf.training.gate_loss import GateLoss
from u2net_tf.training.loss_scale import LossScale

HEAD = (0, 1)


class GatedNetwork(toy.ToyNetwork):
    """The toy network with a gate, whose logits are multiples of the seed."""

    def head_and_gate_logits(self, inputs, *, domain, heads, gates, dropout_seed):
        logits = self(inputs, domain=domain)
        maxima = tf.reduce_max(logits, [1, 2, 3])[:, 1:]
        presence = tf.cast(dropout_seed[1], logits.dtype) * maxima
        return dict.fromkeys(heads, logits), dict.fromkeys(gates, presence)


@pytest.fixture(scope="module")
def network():
    network = GatedNetwork([1, 2], [2, 3], dtype="float64")
    network.build()
    return network


@pytest.mark.parametrize("train_shared", [True, False])
def test_a_module_computes_the_same(network, train_shared):
    scale = LossScale()
    scale.value = tf.Variable(scale.value.numpy(), dtype=tf.float64)
    differentiation = Differentiation(
        network,
        network.shared_variables if train_shared else [],
        num_replicas=2,
        loss_scale=scale,
        detach_focal_factor=False,
        head_weights={HEAD: 1.0},
        gate_loss=GateLoss((HEAD,), 0.1),
    )
    batch = toy.draw_batch(toy.TWO, size=(2, 3, 4), dtype="float64")
    variables = [variable.value for variable in network.domain_variables(1)]
    arguments = variables, batch["image"], batch["labels"]
    module = differentiation.as_module(1, implementation="plain")
    losses = set()
    for seed, factor, is_finite in (
        (2, 1.0, True),
        (3, 8.0, True),
        (3, math.inf, False),
    ):
        scale.value.assign(scale.value * factor)
        key = {"dropout_seed": tf.constant([0, seed], tf.int64)}
        loss, gradients, finite = module(*arguments, **key)
        expected = differentiation(1, *arguments, **key, implementation="plain")
        losses.add(float(loss))
        np.testing.assert_allclose(loss, expected[0], rtol=1e-12)
        assert len(gradients) == len(expected[1]) == 2 + train_shared
        for one, other in zip(gradients, expected[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-15)
        assert finite == expected[2] == is_finite
    # Each seed has its own loss, which does not depend on the scale.
    assert len(losses) == 2
