"""Computes probabilities of patches: resizing, network, resizing back."""

from __future__ import annotations

import typing

import tensorflow as tf

from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.domain_model import DomainModel, MultiHeadModel
from u2net_tf.networks.ops.resizing import resize_image


def segment_patches(
    network: DomainModel,
    spec: ModelSpec,
    index: int,
    patches: tf.Tensor,
    *,
    gate_threshold: float | None = None,
) -> tf.Tensor:
    """Computes the class probabilities of patches in the domain's patch size.

    Args:
      network: the network with its weights.
      spec: its specification.
      index: index of the domain.
      patches: (N, *patch_size, M) float32. If `spec.patch_size` is None, any size
        divisible by 2**pools is accepted.
      gate_threshold: see `UNetSharp.gated_logits`; None to ignore gates.

    Returns:
      (N, *patch_size, K) float32.
    """

    def logits(patches: tf.Tensor) -> tf.Tensor:
        if gate_threshold is None:
            return network(patches, domain=index, training=False)
        gated = typing.cast(MultiHeadModel, network)
        return gated.gated_logits(patches, domain=index, threshold=gate_threshold)

    patch_size = spec.plan.domains[index].patch_size
    size = spec.network_patch_size(index)
    if size == patch_size:
        return tf.nn.softmax(logits(patches))
    resized = resize_image(patches, size, method=spec.resize_method)
    # Always linear: cubic interpolation would leave the range 0 to 1.
    return resize_image(tf.nn.softmax(logits(resized)), patch_size, method="linear")
