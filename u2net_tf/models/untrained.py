"""Warns of heads and gates of a UNet# that no training has changed.

A head or gate that is left out of the loss keeps the initial value of its biases,
exactly 0, while weight decay reduces its kernel.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from absl import logging

from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.networks.layers.convolutions import DomainConv3D
from u2net_tf.networks.unet_sharp import UNetSharp
from u2net_tf.plan.sharp_grid import gate_places


def warn_of_untrained_head(network: DomainModel, spec: ModelSpec, model: str) -> None:
    """Logs a warning if the head that a UNet# was pruned to has not been trained.

    Args:
      network: the network with its weights.
      spec: specification of the network.
      model: name of the model for the warning, such as its checkpoint.
    """
    if not isinstance(network, UNetSharp) or spec.pruned_to is None:
        return
    if names := _untrained(network.heads.values(), spec):
        logging.warning(
            "%s: the head on X^{0,%d}, to which the network is pruned, has not been "
            "trained for %s (see top_head_weights), so its labels are meaningless",
            model,
            spec.pruned_to,
            ", ".join(names),
        )


def warn_of_untrained_gates(network: DomainModel, spec: ModelSpec, model: str) -> None:
    """Logs a warning if gates have not been trained; see `warn_of_untrained_head`."""
    if not isinstance(network, UNetSharp):
        return
    places = gate_places(network.gates_setting, network.depth, deep_supervision=False)
    convolutions = [network.gates[place].conv for place in places]
    if names := _untrained(convolutions, spec):
        logging.warning(
            "%s: its gates have not been trained for %s (see gate_loss_weight), so "
            "gate_threshold may suppress any class",
            model,
            ", ".join(names),
        )


def _untrained(layers: Iterable[DomainConv3D], spec: ModelSpec) -> list[str]:
    """Returns the domains for which the biases of a layer are all 0."""
    layers = list(layers)
    return [
        name
        for index, name in enumerate(spec.plan.names)
        if any(not np.any(layer.biases[index].numpy()) for layer in layers)
    ]
