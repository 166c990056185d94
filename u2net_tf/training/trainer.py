"""The training step: one compiled function per domain.

A step of one domain reads and changes the shared variables and the domain's own, and
nothing else: no gradient, no momentum, no decay reaches another domain. There is one
Adam for the shared variables and one per domain, so that each corrects its bias by the
number of its own steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from u2net_tf.losses import segmentation_loss

# PyTorch's default, which the published code uses; Keras' own is 1e-7.
_ADAM_EPSILON = 1e-8


class Trainer:
    """Takes optimizer steps.

    Args:
      network: a `U2Net`, built under `strategy`'s scope.
      learning_rate: of Adam.
      weight_decay: L2 factor, added to the gradient as weight_decay * variable before
        Adam (as the paper's PyTorch does), not decoupled.
      detach_focal_factor: see `losses.focal`.
      strategy: distribution strategy; TensorFlow's default if None.

    Reference: 3D U²-Net, sections 2.4 and 3.
    """

    def __init__(
        self,
        network,
        *,
        learning_rate: float,
        weight_decay: float,
        detach_focal_factor: bool = False,
        strategy: tf.distribute.Strategy | None = None,
    ):
        self.network = network
        self.strategy = strategy or tf.distribute.get_strategy()
        self._weight_decay = weight_decay
        self._detach_focal_factor = detach_focal_factor
        with self.strategy.scope():
            self.shared_optimizer = _adam("shared", learning_rate)
            self.shared_optimizer.build(network.shared_variables)
            self.domain_optimizers = []
            for domain in range(network.num_domains):
                optimizer = _adam(f"domain_{domain}", learning_rate)
                optimizer.build(network.domain_variables(domain))
                self.domain_optimizers.append(optimizer)
        self._steps = [self._make_step(domain) for domain in range(network.num_domains)]

    @property
    def optimizers(self) -> Sequence[keras.optimizers.Optimizer]:
        """The shared optimizer, then one per domain."""
        return [self.shared_optimizer, *self.domain_optimizers]

    def set_learning_rate(self, value: float) -> None:
        """Sets it for every optimizer."""
        for optimizer in self.optimizers:
            optimizer.learning_rate.assign(value)

    def step(self, domain: int, batch: Mapping[str, tf.Tensor]) -> float:
        """Takes one step.

        Args:
          domain: index of the domain that the batch is from.
          batch: {"image": (B, z, y, x, C), "labels": (B, z, y, x)}, per replica if
            the dataset was distributed.

        Returns:
          The loss before the step, mean over the replicas; NaN if the gradient's norm
          is not finite.
        """
        return float(self._steps[domain](batch["image"], batch["labels"]))

    def _make_step(self, domain: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        network, strategy = self.network, self.strategy
        num_replicas = strategy.num_replicas_in_sync
        shared = network.shared_variables
        own = network.domain_variables(domain)

        def replica_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            channels = network.num_modalities[domain]
            images = tf.ensure_shape(images, [None, None, None, None, channels])
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([variable.value for variable in (*shared, *own)])
                logits = network(images, domain=domain, training=True)
                loss = segmentation_loss(
                    labels, logits, detach_factor=self._detach_focal_factor
                )
                # The optimizers add up the replicas' gradients.
                scaled = loss / num_replicas
            gradients = tape.gradient(
                scaled, [variable.value for variable in (*shared, *own)]
            )
            decay = self._weight_decay / num_replicas
            gradients = [
                gradient + decay * tf.cast(variable.value, gradient.dtype)
                for gradient, variable in zip(gradients, (*shared, *own), strict=True)
            ]
            self.shared_optimizer.apply(gradients[: len(shared)], shared)
            self.domain_optimizers[domain].apply(gradients[len(shared) :], own)
            # A gradient that is not finite spoils variables and moments while the loss
            # of this very batch may still look well.
            finite = tf.math.is_finite(tf.linalg.global_norm(gradients))
            return tf.where(finite, loss, tf.constant(math.nan, loss.dtype))

        @tf.function(reduce_retracing=True)
        def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            losses = strategy.run(replica_step, args=(images, labels))
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

        return step


class _TorchAdam(keras.optimizers.Adam):
    """Adam as PyTorch has it, which the paper used.

    PyTorch adds ε beside the bias-corrected second moment; Keras adds it beside the
    uncorrected one, which makes it 30 times as large at the first step.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Changes one variable, as `apply` asks for it."""
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (tf.square(gradient) - square) * (1 - self.beta_2))
        rate = tf.cast(learning_rate, gradient.dtype)
        rate /= self._correction(self.beta_1, gradient.dtype)
        corrected = square / self._correction(self.beta_2, gradient.dtype)
        change = rate * mean / (tf.sqrt(corrected) + self.epsilon)
        self.assign_sub(variable, change)

    def _correction(self, beta: float, dtype: tf.DType) -> tf.Tensor:
        # In float64: 1 - 0.999 has a relative error of 1e-5 in float32.
        step = tf.cast(self.iterations.value + 1, tf.float64)
        return tf.cast(1 - tf.pow(tf.constant(beta, tf.float64), step), dtype)


def _adam(name: str, learning_rate: float) -> keras.optimizers.Adam:
    return _TorchAdam(learning_rate, epsilon=_ADAM_EPSILON, name=name)
