"""Builds the network that a specification describes."""

from __future__ import annotations

from typing import Any

from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.u2net import U2Net


def build_network(spec: ModelSpec, **kwargs: Any) -> U2Net:
    """Returns a network with all its variables, randomly initialized.

    Args:
      spec: specification of the network.
      **kwargs: `name`, `dtype` and `gradient_checkpointing` of the model.
    """
    network = U2Net(
        [domain.num_modalities for domain in spec.plan.domains],
        [domain.num_classes for domain in spec.plan.domains],
        pools=spec.pools,
        base_channels=spec.base_channels,
        adapter=spec.adapter,
        second_up_conv=spec.second_up_conv,
        **kwargs,
    )
    network.build()
    return network
