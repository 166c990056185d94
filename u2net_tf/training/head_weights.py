"""Loss of a network with several heads: the weighted mean of the heads' losses."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import tensorflow as tf

from u2net_tf.config.training import LossConfig
from u2net_tf.errors import InputError
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.domain_model import DomainModel, MultiHeadModel
from u2net_tf.plan.sharp_grid import Place, deep_heads, top_heads
from u2net_tf.training.domain_losses import DomainLoss

# Place of a head -> its weight in the loss; the weights sum to 1.
HeadWeights: TypeAlias = Mapping[Place, float]


def head_weights(loss: LossConfig, spec: ModelSpec) -> HeadWeights | None:
    """Returns the weights of the heads in the loss; None for a single head.

    With gates, which are computed together with it, a single head gets a weight, too.

    Args:
      loss: settings of the loss.
      spec: specification of the network.

    Raises:
      InputError: if a setting is invalid for the network.
    """
    given = {
        "top_head_weights": loss.top_head_weights,
        "deep_head_weights": loss.deep_head_weights,
    }
    if spec.depth is None or not spec.deep_supervision:
        why = "has a single head" if spec.depth else f"is a {spec.architecture}"
        for name, values in given.items():
            if values:
                raise InputError(
                    f"`{name}`",
                    expected=f"none, as the network {why}",
                    received=",".join(map(str, values)),
                )
        if spec.depth is None or spec.gates == "none":
            return None
        return {(0, spec.depth): 1.0}
    weights: dict[Place, float] = {}
    places = (top_heads(spec.depth), deep_heads(spec.depth))
    for (name, values), heads in zip(given.items(), places, strict=True):
        values = values or (1.0,) * spec.depth
        if len(values) != spec.depth:
            raise InputError(
                f"`{name}`",
                expected=f"{spec.depth} numbers, as the network's depth is "
                f"{spec.depth}",
                received=",".join(map(str, values)),
            )
        weights |= zip(heads, values, strict=True)
    if not weights[0, spec.depth]:
        raise InputError(
            "`top_head_weights`",
            expected="a last number above 0, the weight of the head that predicts",
            received=",".join(map(str, loss.top_head_weights)),
        )
    total = sum(weights.values())
    return {head: weight / total for head, weight in weights.items() if weight}


def logits_of(
    network: DomainModel,
    images: tf.Tensor,
    domain: int,
    weights: HeadWeights | None,
    *,
    gates: Sequence[Place] = (),
    dropout_seed: tf.Tensor | None = None,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Computes the logits that enter the loss.

    Args:
      network: the network, a `MultiHeadModel` if `weights` is not None.
      images: (B, z, y, x, C).
      domain: index of the domain.
      weights: see `head_weights`.
      gates: gates that enter the loss.
      dropout_seed: (2,) integers, seed of the gates' dropout.

    Returns:
      Logits (B, z, y, x, K) of each head, in the order of the weights, and (B, K - 1)
      of each gate.
    """
    if weights is None:
        return [network(images, domain=domain, training=True)], []
    multi_head = typing.cast(MultiHeadModel, network)
    logits, presence = multi_head.head_and_gate_logits(
        images,
        domain=domain,
        heads=list(weights),
        gates=gates,
        dropout_seed=dropout_seed,
    )
    return [logits[head] for head in weights], [presence[gate] for gate in gates]


def weighted_loss(
    labels: tf.Tensor,
    logits: Sequence[tf.Tensor],
    weights: HeadWeights | None,
    head_loss: DomainLoss,
    *,
    detach_factor: bool,
) -> tf.Tensor:
    """Returns the weighted mean of the losses of all heads.

    Args:
      labels: (B, z, y, x).
      logits: see `logits_of`.
      weights: see `head_weights`.
      head_loss: loss of one head.
      detach_factor: see `losses.focal`.
    """
    losses = [head_loss(labels, each, detach_factor=detach_factor) for each in logits]
    if weights is None:
        return losses[0]
    pairs = zip(weights.values(), losses, strict=True)
    return tf.add_n([weight * loss for weight, loss in pairs])
