"""Which domains can share one trace of a training step."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.training.adam import AdamState


def domains_sharing_a_trace(
    network: DomainModel, states: Mapping[int, AdamState]
) -> Mapping[int, int]:
    """Returns domain -> the first domain with variables of the same shapes.

    Args:
      network: the network.
      states: domain -> its variables, which are arguments of a step.
    """
    firsts: dict[object, int] = {}
    traced = {}
    for domain, state in states.items():
        variables = tf.nest.flatten(state)
        signature: object = (
            network.num_modalities[domain],
            network.num_classes[domain],
            tuple((tuple(each.shape), each.dtype) for each in variables),
        )
        # A `tf.function` takes two distributed variables of one shape for the
        # same one, and would go on changing the first.
        if any(isinstance(v, tf.distribute.DistributedValues) for v in variables):
            signature = domain
        traced[domain] = firsts.setdefault(signature, domain)
    return traced
