"""Classification of a whole patch: is a class in it at all?"""

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
    """Dropout · 1×1×1 convolution of the domain · global maximum.

    The sigmoid of what it returns is the probability that a patch holds a class.

    Dropout drops channels, each in all voxels of a patch. Were it drawn for each voxel,
    the maximum would choose, among millions, the voxels where the draw suits it, and be
    larger in training than in prediction, which has no dropout.

    Args:
      in_channels: Channels of the inputs.
      num_classes: Classes of each domain, background included: it is in every patch,
        and there is no output for it.
      **kwargs: As of `keras.layers.Layer`.
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
        """Computes the logits of presence.

        Args:
          inputs: Tensor of shape (N, D, H, W, in_channels).
          domain: Index of the domain.
          dropout_seed: (2,) integers that determine which channels are dropped; None
            for no dropout.

        Returns:
          Tensor of shape (N, K - 1), K the classes of `domain`.
        """
        domain = self.check_domain(domain)
        kernel = tf.convert_to_tensor(self.conv.kernels[domain])[0, 0, 0]
        num_patches = tf.shape(inputs)[0]
        if dropout_seed is not None:
            # In the kernel: a copy of the inputs would take their memory once more.
            factors = tf.nn.experimental.stateless_dropout(
                tf.ones([num_patches, self.in_channels]),
                rate=DROPOUT_RATE,
                seed=dropout_seed,
                rng_alg="philox",
            )
            kernel *= tf.cast(factors, kernel.dtype)[..., tf.newaxis]
        voxels = tf.reshape(inputs, [num_patches, -1, self.in_channels])
        # The bias, which is that of all voxels, moves their maximum.
        most = tf.reduce_max(tf.matmul(voxels, kernel), axis=1)
        return most + tf.convert_to_tensor(self.conv.biases[domain])

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
    """Calls gates.

    Args:
      gates: Place -> gate, and the map that it reads.
      domain: Index of the domain.
      dropout_seed: (2,) integers, from which each gate gets a seed of its own; None for
        no dropout.

    Returns:
      Place -> logits of presence.
    """
    found = {}
    for place, (gate, inputs) in gates.items():
        seed = None
        if dropout_seed is not None:
            number = tf.constant(place[0] - place[1], dropout_seed.dtype)
            seed = tf.random.fold_in(dropout_seed, number, alg="philox")
        found[place] = gate(inputs, domain=domain, dropout_seed=seed)
    return found


def close_gates(
    logits: tf.Tensor, presence: Sequence[tf.Tensor], threshold: float
) -> tf.Tensor:
    """Returns logits in which a class that a patch does not hold cannot win.

    Args:
      logits: (N, D, H, W, K), of the classes of each voxel.
      presence: (N, K - 1) of each gate, as `ClassGate` returns it.
      threshold: The probability from which on a gate lets a class pass; it must pass
        all gates.

    Returns:
      The logits; those of a class that does not pass are the least finite number in
      all voxels of the patch, so that its probability is exactly 0.
    """
    passes = tf.reduce_all([tf.sigmoid(each) >= threshold for each in presence], axis=0)
    # The background does.
    passes = tf.concat([tf.ones_like(passes[:, :1]), passes], axis=1)
    return tf.where(passes[:, None, None, None], logits, logits.dtype.min)
