"""The loss of a batch and its gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.networks.ops import use_implementation
from u2net_tf.training import head_weights as heads
from u2net_tf.training.domain_losses import DomainLoss
from u2net_tf.training.empty_patches import stop_gradient_of_empty
from u2net_tf.training.gate_loss import NO_GATES, GateLoss
from u2net_tf.training.loss_scale import LossScale


@dataclasses.dataclass(frozen=True)
class Differentiation:
    """Computes the loss and the gradients of one replica.

    Attributes:
      network: network to train.
      shared: shared variables to differentiate with respect to.
      num_replicas: number of replicas; the optimizers sum their gradients.
      loss_scale: scale of the loss during differentiation, or None.
      detach_focal_factor: see `losses.focal`.
      head_weights: weights of the heads, if there are several; see `head_weights`.
      gate_loss: loss of the gates, which are not computed without one.
      domain_losses: loss of a head in each domain; of classes without an ignore label
        if empty.
    """

    network: DomainModel
    shared: Sequence[keras.Variable]
    num_replicas: int
    loss_scale: LossScale | None
    detach_focal_factor: bool
    head_weights: heads.HeadWeights | None = None
    gate_loss: GateLoss = NO_GATES
    domain_losses: Sequence[DomainLoss] = ()

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
          domain: index of the domain whose layers are called.
          variables: variables to read instead of the domain's own.
          images: (B, z, y, x, C).
          labels: (B, z, y, x).
          dropout_seed: (2,) integers, needed if there are gates.
          implementation: implementation of the operations; the current one if None. It
            is set here because each replica has its own thread.
        """
        network = self.network
        domain_values = [tf.convert_to_tensor(variable) for variable in variables]
        replaced = zip(network.domain_variables(domain), domain_values, strict=True)
        values = [*(variable.value for variable in self.shared), *domain_values]
        channels = network.num_modalities[domain]
        head_loss = self.domain_losses[domain] if self.domain_losses else DomainLoss()
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
                [stop_gradient_of_empty(images, each) for each in logits],
                self.head_weights,
                head_loss,
                detach_factor=self.detach_focal_factor,
            )
            if presence:
                loss += self.gate_loss(
                    labels,
                    [stop_gradient_of_empty(images, each) for each in presence],
                    ignore_index=head_loss.ignore_index,
                )
            scaled = loss / self.num_replicas
            if self.loss_scale is not None:
                scaled *= self.loss_scale.value
        # Heads and gates that do not enter the loss get zero gradients.
        gradients = tape.gradient(scaled, values, unconnected_gradients="zero")
        if self.loss_scale is not None:
            scale = self.loss_scale.value.read_value()
            gradients = [gradient / scale for gradient in gradients]
        return loss, gradients, tf.math.is_finite(tf.linalg.global_norm(gradients))
