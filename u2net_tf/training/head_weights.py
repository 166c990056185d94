"""The loss of a network with several heads: the weighted mean of the losses of each."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import tensorflow as tf

from u2net_tf.config.training import LossConfig
from u2net_tf.errors import InputError
from u2net_tf.losses import segmentation_loss
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.domain_model import DomainModel, MultiHeadModel
from u2net_tf.plan.sharp_grid import Place, deep_heads, top_heads

# Place of a head -> its part in the loss; all parts together are 1.
HeadWeights: TypeAlias = Mapping[Place, float]


def head_weights(loss: LossConfig, spec: ModelSpec) -> HeadWeights | None:
    """Returns the heads that have a part in the loss; None for a network without.

    A single head is named if the network has gates, which are computed with it.

    Args:
      loss: settings of the loss.
      spec: specification of the network.

    Raises:
      InputError: names the setting that does not fit the network.
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
            expected="a last number above 0, that of the head that predicts",
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
    """Computes the logits that have a part in the loss.

    Args:
      network: the network, a `MultiHeadModel` if `weights` is not None.
      images: (B, z, y, x, C).
      domain: index of the domain.
      weights: as of `head_weights`.
      gates: the gates that have a part in the loss.
      dropout_seed: (2,) integers for the dropout of the gates.

    Returns:
      (B, z, y, x, K) of each head, in the order of the weights, and (B, K - 1) of each
      gate.
    """
    if weights is None:
        return [network(images, domain=domain, training=True)], []
    with_heads = typing.cast(MultiHeadModel, network)
    found, presence = with_heads.head_and_gate_logits(
        images,
        domain=domain,
        heads=list(weights),
        gates=gates,
        dropout_seed=dropout_seed,
    )
    return [found[head] for head in weights], [presence[gate] for gate in gates]


def weighted_loss(
    labels: tf.Tensor,
    logits: Sequence[tf.Tensor],
    weights: HeadWeights | None,
    *,
    detach_factor: bool,
) -> tf.Tensor:
    """Returns the mean of the losses of all heads, by their weights.

    Args:
      labels: (B, z, y, x).
      logits: as of `logits_of`.
      weights: as of `head_weights`.
      detach_factor: as of `segmentation_loss`.
    """
    losses = [
        segmentation_loss(labels, of_head, detach_factor=detach_factor)
        for of_head in logits
    ]
    if weights is None:
        return losses[0]
    pairs = zip(weights.values(), losses, strict=True)
    return tf.add_n([weight * loss for weight, loss in pairs])
