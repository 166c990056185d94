"""Grouping of domains that can share one trace of a training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.training.adam import AdamState
from u2net_tf.training.domain_losses import DomainLoss


def domains_sharing_a_trace(
    network: DomainModel,
    states: Mapping[int, AdamState],
    domain_losses: Sequence[DomainLoss] = (),
) -> Mapping[int, int]:
    """Returns domain -> the first domain with the same loss and shapes of variables.

    Args:
      network: network with the variables.
      states: domain -> its variables and optimizer state, arguments of a step.
      domain_losses: see `Differentiation`.
    """
    first_domains: dict[object, int] = {}
    traced = {}
    for domain, state in states.items():
        variables = tf.nest.flatten(state)
        signature: object = (
            network.num_modalities[domain],
            network.num_classes[domain],
            domain_losses[domain] if domain_losses else None,
            tuple((tuple(each.shape), each.dtype) for each in variables),
        )
        # A `tf.function` does not distinguish distributed variables of the same
        # shape and would continue to update those of the first domain.
        if any(isinstance(v, tf.distribute.DistributedValues) for v in variables):
            signature = domain
        traced[domain] = first_domains.setdefault(signature, domain)
    return traced
