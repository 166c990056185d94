"""Warns of heads and gates of a UNet# that no training has changed.

A head or gate without a training step, or with the weight 0 in every step, keeps the
initial value of its biases, exactly 0, while weight decay may reduce its kernel.
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


def warn_of_untrained(
    network: DomainModel,
    spec: ModelSpec,
    domain: int,
    checkpoint: str,
    *,
    with_gates: bool = False,
) -> None:
    """Logs a warning if the head or a gate that predicts has not been trained.

    Args:
      network: the network with its weights.
      spec: specification of the network.
      domain: index of the domain.
      checkpoint: path of the weights.
      with_gates: whether predictions are gated.
    """
    if not isinstance(network, UNetSharp):
        return
    name, depth = spec.plan.names[domain], network.depth
    if _is_untrained([network.heads[0, depth]], domain):
        logging.warning(
            "%s: the head on X^{0,%d} has not been trained for %s (no training step, "
            "or always the weight 0 in top_head_weights), so its labels mean nothing",
            checkpoint,
            depth,
            name,
        )
    places = gate_places(network.gates_setting, depth, deep_supervision=False)
    gates = [network.gates[place].conv for place in places]
    if with_gates and _is_untrained(gates, domain):
        logging.warning(
            "%s: a gate has not been trained for %s (no training step, or always the "
            "gate_loss_weight 0), so gate_threshold may suppress any class",
            checkpoint,
            name,
        )


def _is_untrained(layers: Iterable[DomainConv3D], domain: int) -> bool:
    return any(not np.any(layer.biases[domain].numpy()) for layer in layers)
