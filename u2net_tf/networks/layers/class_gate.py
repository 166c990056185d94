"""Patch classification: the presence of each class in a patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from u2net_tf.networks.layers.convolutions import DomainConv3D
from u2net_tf.networks.layers.domain_layer import DomainLayer
from u2net_tf.plan.sharp_grid import Place

DROPOUT_RATE = 0.5


@keras.saving.register_keras_serializable(package="u2net_tf")
class ClassGate(DomainLayer):
    """Dropout · per-domain 1×1×1 convolution · global max pooling.

    The sigmoid of the outputs is the probability that a patch contains a class.

    Dropout drops entire channels of a patch. If it were drawn per voxel, the maximum
    over millions of voxels would favour voxels with a lucky draw and be larger in
    training than in prediction, which has no dropout.

    Args:
      in_channels: Number of input channels.
      num_classes: Number of classes of each domain, including the background, which
        is in every patch and has no output.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, in_channels: int, num_classes: Sequence[int], **kwargs: Any):
        super().__init__(num_domains=len(num_classes), **kwargs)
        self.in_channels = in_channels
        self.num_classes = tuple(num_classes)
        self.conv = self.add_part(
            DomainConv3D(
                (in_channels,) * self.num_domains,
                tuple(count - 1 for count in self.num_classes),
                kernel_size=(1, 1, 1),
                name="conv",
                dtype=self.dtype_policy,
            )
        )

    def call(
        self,
        inputs: tf.Tensor,
        *,
        domain: int,
        dropout_seed: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Computes the presence logits.

        Args:
          inputs: Tensor of shape (N, D, H, W, in_channels).
          domain: Index of the domain.
          dropout_seed: (2,) integers that determine which channels are dropped; None
            for no dropout.

        Returns:
          Tensor of shape (N, K - 1), with the K classes of `domain`.
        """
        domain = self.check_domain(domain)
        kernel = tf.convert_to_tensor(self.conv.kernels[domain])[0, 0, 0]
        num_patches = tf.shape(inputs)[0]
        if dropout_seed is not None:
            # Applied to the kernel: a copy of the inputs would double their memory.
            factors = tf.nn.experimental.stateless_dropout(
                tf.ones([num_patches, self.in_channels]),
                rate=DROPOUT_RATE,
                seed=dropout_seed,
                rng_alg="philox",
            )
            kernel *= tf.cast(factors, kernel.dtype)[..., tf.newaxis]
        voxels = tf.reshape(inputs, [num_patches, -1, self.in_channels])
        # The bias is equal in all voxels and can be added to their maximum.
        maxima = tf.reduce_max(tf.matmul(voxels, kernel), axis=1)
        return maxima + tf.convert_to_tensor(self.conv.biases[domain])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.in_channels,
            "num_classes": self.num_classes,
        }


def detect_classes(
    gates: Mapping[Place, tuple[ClassGate, tf.Tensor]],
    *,
    domain: int,
    dropout_seed: tf.Tensor | None = None,
) -> dict[Place, tf.Tensor]:
    """Computes the presence logits of several gates.

    Args:
      gates: Place -> gate, and the feature map that it reads.
      domain: Index of the domain.
      dropout_seed: (2,) integers, from which each gate's seed is derived; None for no
        dropout.

    Returns:
      Place -> presence logits.
    """
    presence = {}
    for place, (gate, inputs) in gates.items():
        seed = None
        if dropout_seed is not None:
            # Gates are in row or column 0, so this differs between all of them.
            number = tf.constant(place[0] - place[1], dropout_seed.dtype)
            seed = tf.random.fold_in(dropout_seed, number, alg="philox")
        presence[place] = gate(inputs, domain=domain, dropout_seed=seed)
    return presence


def close_gates(
    logits: tf.Tensor, presence: Sequence[tf.Tensor], threshold: float
) -> tf.Tensor:
    """Suppresses the logits of classes that are absent from a patch.

    Args:
      logits: (N, D, H, W, K), logits of the classes of each voxel.
      presence: (N, K - 1) presence logits of each gate; see `ClassGate`.
      threshold: Minimum probability of presence for a class to pass a gate; it must
        pass all gates.

    Returns:
      The logits, with those of a suppressed class set to the lowest finite number in
      all voxels of the patch, so that its probability is exactly 0.
    """
    above = [tf.sigmoid(gate_logits) >= threshold for gate_logits in presence]
    passes = tf.reduce_all(above, axis=0)
    # The background always passes.
    passes = tf.concat([tf.ones_like(passes[:, :1]), passes], axis=1)
    return tf.where(passes[:, None, None, None], logits, logits.dtype.min)
