"""From a domain's patches to probabilities: resizing, the network, resizing back."""

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
    """Computes the class probabilities of patches of a domain's own size.

    Args:
      network: with its weights.
      spec: what it is.
      index: of the domain.
      patches: (N, *patch_size, M) float32; of any size that the network can halve, if
        it does not have a patch size of its own.
      gate_threshold: see `UNetSharp.gated_logits`; None to do without gates.

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
    # Linear whatever the image's method: cubic leaves the range 0 to 1.
    return resize_image(tf.nn.softmax(logits(resized)), patch_size, method="linear")
