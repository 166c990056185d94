"""The loss of a batch and its gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import keras
import tensorflow as tf

from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.networks.ops import use_implementation
from u2net_tf.training import head_weights as heads
from u2net_tf.training.domain_losses import DomainLoss
from u2net_tf.training.empty_patches import stop_gradient_of_empty
from u2net_tf.training.gate_loss import NO_GATES, GateLoss
from u2net_tf.training.loss_scale import LossScale

# Loss, gradients, and whether these are finite.
LossAndGradients: TypeAlias = tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Differentiation:
    """Computes the loss and the gradients of one replica.

    Attributes:
      network: network to train.
      shared: shared variables to differentiate with respect to: all or none.
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
    ) -> LossAndGradients:
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
        own = _read(variables)
        return self._compute(
            domain,
            zip(self.network.domain_variables(domain), own, strict=True),
            [*(variable.value for variable in self.shared), *own],
            self.loss_scale and self.loss_scale.value,
            images,
            labels,
            dropout_seed=dropout_seed,
            implementation=implementation,
        )

    def as_module(
        self, domain: int, *, implementation: str | None
    ) -> Callable[..., LossAndGradients]:
        """Returns `__call__` for a domain, compiled by XLA for each replica.

        XLA can only access variables on the device that it compiles for. A replica
        therefore reads its copies of all variables, and passes their values.
        """
        network = self.network

        @tf.function(autograph=False, jit_compile=True)
        def module(
            shared: list[tf.Tensor],
            own: list[tf.Tensor],
            scale: tf.Tensor | None,
            images: tf.Tensor,
            labels: tf.Tensor,
            dropout_seed: tf.Tensor | None,
        ) -> LossAndGradients:
            variables = *network.shared_variables, *network.domain_variables(domain)
            return self._compute(
                domain,
                zip(variables, [*shared, *own], strict=True),
                [*(shared if self.shared else []), *own],
                scale,
                images,
                labels,
                dropout_seed=dropout_seed,
                implementation=implementation,
            )

        traced: dict[tuple, Callable[..., LossAndGradients]] = {}

        def differentiate(
            variables: Sequence[tf.Variable],
            images: tf.Tensor,
            labels: tf.Tensor,
            *,
            dropout_seed: tf.Tensor | None = None,
        ) -> LossAndGradients:
            shared = _read([variable.value for variable in network.shared_variables])
            scale = self.loss_scale and self.loss_scale.value.read_value()
            arguments = shared, _read(variables), scale, images, labels, dropout_seed
            shapes = tuple(images.shape), tuple(labels.shape)
            if shapes not in traced:
                # Without the device of this replica, so that all share the trace.
                with tf.device(None):
                    traced[shapes] = module.get_concrete_function(*arguments)
            return traced[shapes](*arguments)

        return differentiate

    def _compute(
        self,
        domain: int,
        replaced: Iterable[tuple[keras.Variable, tf.Tensor]],
        values: Sequence[tf.Tensor | tf.Variable],
        scale: tf.Tensor | tf.Variable | None,
        images: tf.Tensor,
        labels: tf.Tensor,
        *,
        dropout_seed: tf.Tensor | None,
        implementation: str | None,
    ) -> LossAndGradients:
        """Computes loss and gradients.

        Args:
          domain: index of the domain whose layers are called.
          replaced: variables with values to read instead.
          values: what to differentiate with respect to.
          scale: scale of the loss, or None.
          images: see `__call__`.
          labels: see `__call__`.
          dropout_seed: see `__call__`.
          implementation: see `__call__`.
        """
        network = self.network
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
            if scale is not None:
                scaled *= scale
        # Heads and gates that do not enter the loss get zero gradients.
        gradients = tape.gradient(scaled, values, unconnected_gradients="zero")
        if scale is not None:
            divisor = tf.convert_to_tensor(scale)
            gradients = [gradient / divisor for gradient in gradients]
        return loss, gradients, tf.math.is_finite(tf.linalg.global_norm(gradients))


def _read(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable) for variable in variables]
