"""The loss of a batch and its gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.networks.ops import use_implementation
from u2net_tf.training import head_weights as heads
from u2net_tf.training.empty_patches import stop_gradient_of_empty
from u2net_tf.training.gate_loss import NO_GATES, GateLoss
from u2net_tf.training.loss_scale import LossScale


@dataclasses.dataclass(frozen=True)
class Differentiation:
    """Computes loss and gradients of one replica.

    Attributes:
      network: the network.
      shared: the shared variables to differentiate in.
      num_replicas: number of replicas, whose gradients the optimizers sum.
      loss_scale: factor of the loss while it is differentiated; None for none.
      detach_focal_factor: see `losses.focal`.
      head_weights: of the heads of a network that has several; see `head_weights`.
      gate_loss: loss of the gates; without any, they are not computed.
    """

    network: DomainModel
    shared: Sequence[keras.Variable]
    num_replicas: int
    loss_scale: LossScale | None
    detach_focal_factor: bool
    head_weights: heads.HeadWeights | None = None
    gate_loss: GateLoss = NO_GATES

    def __call__(
        self,
        domain: int,
        variables: Sequence[tf.Variable],
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        dropout_seed: tf.Tensor | None = None,
        implementation: str | None = None,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        """Returns loss, gradients, and whether these are finite.

        Args:
          domain: the domain whose layers are called.
          variables: read in place of the domain's own.
          images: (B, z, y, x, C).
          labels: (B, z, y, x).
          dropout_seed: (2,) integers, if there are gates.
          implementation: of the operations; the current one if None. It is set here
            because each replica has a thread of its own.
        """
        network = self.network
        own = [tf.convert_to_tensor(variable) for variable in variables]
        replaced = zip(network.domain_variables(domain), own, strict=True)
        values = [*(variable.value for variable in self.shared), *own]
        channels = network.num_modalities[domain]
        images = tf.ensure_shape(images, [None, None, None, None, channels])
        with (
            use_implementation(implementation),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(values)
            with keras.StatelessScope(state_mapping=list(replaced)):
                logits, presence = heads.logits_of(
                    network,
                    images,
                    domain,
                    self.head_weights,
                    gates=self.gate_loss.places,
                    dropout_seed=dropout_seed,
                )
            loss = heads.weighted_loss(
                labels,
                [stop_gradient_of_empty(images, of_head) for of_head in logits],
                self.head_weights,
                detach_factor=self.detach_focal_factor,
            )
            if presence:
                loss += self.gate_loss(
                    labels,
                    [stop_gradient_of_empty(images, of_gate) for of_gate in presence],
                )
            scaled = loss / self.num_replicas
            if self.loss_scale is not None:
                scaled *= self.loss_scale.value
        # A head or gate without a part in the loss gets a gradient of 0.
        gradients = tape.gradient(scaled, values, unconnected_gradients="zero")
        if self.loss_scale is not None:
            scale = self.loss_scale.value.read_value()
            gradients = [gradient / scale for gradient in gradients]
        return loss, gradients, tf.math.is_finite(tf.linalg.global_norm(gradients))
