"""Instance normalization per domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.arguments import check_positive_integers
from u2net_tf.networks.layers.channel_groups import Inputs, map_channel_groups
from u2net_tf.networks.layers.domain_layer import DomainLayer, track_for_checkpoint

# Slope of the LeakyReLU in all networks.
NEGATIVE_SLOPE = 0.01


@keras.saving.register_keras_serializable(package="u2net_tf")
class DomainNorm(DomainLayer):
    """Instance normalization with γ and β per domain, optionally with LeakyReLU.

    Args:
      channels_per_domain: Number of channels in each domain; its length is the number
        of domains.
      epsilon: Added to the variance.
      negative_slope: Slope of the LeakyReLU that follows; None for no activation.
      **kwargs: Arguments of `keras.layers.Layer`.

    Reference:
      3D U²-Net, section 2: one set of normalization parameters for each domain.
    """

    def __init__(
        self,
        channels_per_domain: Sequence[int],
        *,
        epsilon: float = 1e-5,
        negative_slope: float | None = None,
        **kwargs: Any,
    ):
        self.channels_per_domain = check_positive_integers(
            "channels_per_domain", channels_per_domain
        )
        super().__init__(num_domains=len(self.channels_per_domain), **kwargs)
        self.epsilon = epsilon
        self.negative_slope = negative_slope
        self.gammas: list[keras.Variable] = []
        self.betas: list[keras.Variable] = []

    def build(self) -> None:
        """Creates the variables of all domains."""
        for domain, channels in enumerate(self.channels_per_domain):
            self.gammas.append(
                self.add_weight(
                    name=f"gamma_{domain}", shape=(channels,), initializer="ones"
                )
            )
            self.betas.append(
                self.add_weight(
                    name=f"beta_{domain}", shape=(channels,), initializer="zeros"
                )
            )
        track_for_checkpoint(self, "gamma", self.gammas)
        track_for_checkpoint(self, "beta", self.betas)

    def own_domain_variables(self, domain: int) -> dict[str, keras.Variable]:
        """Returns γ and β of `domain`."""
        return {"gamma": self.gammas[domain], "beta": self.betas[domain]}

    def call(
        self, inputs: Inputs, residual: tf.Tensor | None = None, *, domain: int
    ) -> Inputs:
        """Normalizes with the parameters of `domain`.

        Args:
          inputs: Tensor of shape (N, D, H, W, C), or a list of channel groups.
          residual: Tensor of the shape of `inputs`, added before the activation, or
            None.
          domain: Index of the domain.

        Returns:
          A tensor, or list of tensors, of the same shapes as `inputs`.
        """
        domain = self.check_domain(domain)

        def normalize(
            inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor
        ) -> tf.Tensor:
            return ops.instance_norm(
                inputs,
                gamma,
                beta,
                residual,
                epsilon=self.epsilon,
                negative_slope=self.negative_slope,
            )

        parameters = self.gammas[domain], self.betas[domain]
        return map_channel_groups(
            normalize, inputs, *map(tf.convert_to_tensor, parameters)
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "channels_per_domain": self.channels_per_domain,
            "epsilon": self.epsilon,
            "negative_slope": self.negative_slope,
        }
