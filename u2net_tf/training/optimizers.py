"""The optimizers of a network: one for the shared variables and one per domain."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.training.adam import TorchAdam


def make_optimizers(
    network: DomainModel,
    domains: Sequence[int],
    *,
    train_shared: bool,
    learning_rate: float,
    weight_decay: float,
    weight_ema_decay: float,
) -> tuple[TorchAdam | None, dict[int, TorchAdam]]:
    """Makes the optimizers of a `Trainer`, whose arguments these are.

    The moving averages of shared variables, which the steps of n domains change, have
    the n-th root of the decay, so that they extend over the same time as the others.

    Returns:
      The optimizer of the shared variables, None if these are not trained, and domain
      -> the optimizer of its variables.
    """
    adam = functools.partial(TorchAdam, learning_rate, l2_factor=weight_decay)
    shared = None
    if train_shared:
        decay = weight_ema_decay ** (1 / len(domains))
        shared = adam(ema_decay=decay, name="shared")
        shared.build(network.shared_variables)
    of_domains = {}
    for domain in domains:
        optimizer = adam(ema_decay=weight_ema_decay, name=f"domain_{domain}")
        optimizer.build(network.domain_variables(domain))
        of_domains[domain] = optimizer
    return shared, of_domains
