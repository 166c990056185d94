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
from u2net_tf.training.loss_scale import MIN_LOSS_SCALE, LossScale

# PyTorch's default, which the published code uses; Keras' own is 1e-7.
_ADAM_EPSILON = 1e-8


class Trainer:
    """Takes optimizer steps.

    Args:
      network: a `U2Net`, built under `strategy`'s scope. If its dtype policy computes
        in float16, the loss is scaled.
      learning_rate: of Adam.
      weight_decay: L2 factor, added to the gradient as weight_decay * variable before
        Adam (as the paper's PyTorch does), not decoupled.
      detach_focal_factor: see `losses.focal`.
      strategy: distribution strategy; TensorFlow's default if None.
      domains: indices of the domains to train, in the order of their turns; all if
        None. The others' variables are not touched.
      train_shared: whether the shared variables are trained; otherwise they are not
        touched, as when a domain is added.

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
        domains: Sequence[int] | None = None,
        train_shared: bool = True,
    ):
        self.network = network
        self.strategy = strategy or tf.distribute.get_strategy()
        self.domains = tuple(range(network.num_domains) if domains is None else domains)
        self._weight_decay = weight_decay
        self._detach_focal_factor = detach_focal_factor
        self.train_shared = train_shared
        self._shared = network.shared_variables if train_shared else []
        with self.strategy.scope():
            self.shared_optimizer = None
            if train_shared:
                self.shared_optimizer = _adam("shared", learning_rate)
                self.shared_optimizer.build(self._shared)
            self.domain_optimizers = {}
            for domain in self.domains:
                optimizer = _adam(f"domain_{domain}", learning_rate)
                optimizer.build(network.domain_variables(domain))
                self.domain_optimizers[domain] = optimizer
            half = network.compute_dtype == "float16"
            self.loss_scale = LossScale() if half else None
        self._steps = {domain: self._make_step(domain) for domain in self.domains}

    @property
    def optimizers(self) -> Sequence[keras.optimizers.Optimizer]:
        """The shared optimizer, if there is one, then one per trained domain."""
        shared = [self.shared_optimizer] if self.shared_optimizer else []
        return [*shared, *self.domain_optimizers.values()]

    @property
    def trained_variables(self) -> Sequence[keras.Variable]:
        """The variables that steps change."""
        own = (self.network.domain_variables(domain) for domain in self.domains)
        return [*self._shared, *(variable for part in own for variable in part)]

    @property
    def state(self) -> Sequence[tf.Module]:
        """What a checkpoint must hold besides the network."""
        return [*self.optimizers, *([self.loss_scale] if self.loss_scale else [])]

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
          is not finite. Where the loss is scaled, such a step changes nothing but the
          scale, and it is NaN only if scaling has nothing to do with it.
        """
        return float(self._steps[domain](batch["image"], batch["labels"]))

    def _make_step(self, domain: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        strategy = self.strategy

        def whole_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            loss, gradients, finite = self._differentiate(domain, images, labels)
            self._apply(domain, gradients)
            # A gradient that is not finite spoils variables and moments while the loss
            # of this very batch may still look well.
            return tf.where(finite, loss, tf.constant(math.nan, loss.dtype))

        def scaled_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            loss, gradients, finite = strategy.run(
                lambda *batch: self._differentiate(domain, *batch), (images, labels)
            )
            # All replicas or none, so the condition stands outside of them.
            num_finite = strategy.reduce(
                tf.distribute.ReduceOp.SUM,
                strategy.run(lambda flag: tf.cast(flag, tf.int32), (finite,)),
                axis=None,
            )
            finite = tf.equal(num_finite, strategy.num_replicas_in_sync)

            def take() -> tf.Tensor:
                strategy.run(lambda values: self._apply(domain, values), (gradients,))
                return tf.constant(True)

            tf.cond(finite, take, lambda: tf.constant(False))
            loss = strategy.reduce(tf.distribute.ReduceOp.MEAN, loss, axis=None)
            unscaled = self.loss_scale.value <= MIN_LOSS_SCALE
            self.loss_scale.update(finite)
            return tf.where(unscaled & ~finite, tf.constant(math.nan, loss.dtype), loss)

        @tf.function(reduce_retracing=True)
        def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            if self.loss_scale is not None:
                return scaled_step(images, labels)
            losses = strategy.run(whole_step, args=(images, labels))
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

        return step

    def _differentiate(
        self, domain: int, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        """Loss, gradients with decay, and whether these are finite, of one replica."""
        network, num_replicas = self.network, self.strategy.num_replicas_in_sync
        variables = [*self._shared, *network.domain_variables(domain)]
        values = [variable.value for variable in variables]
        channels = network.num_modalities[domain]
        images = tf.ensure_shape(images, [None, None, None, None, channels])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            logits = network(images, domain=domain, training=True)
            loss = segmentation_loss(
                labels, logits, detach_factor=self._detach_focal_factor
            )
            # The optimizers add up the replicas' gradients.
            scaled = loss / num_replicas
            if self.loss_scale is not None:
                scaled *= self.loss_scale.value
        gradients = tape.gradient(scaled, values)
        if self.loss_scale is not None:
            gradients = [gradient / self.loss_scale.value for gradient in gradients]
        decay = self._weight_decay / num_replicas
        gradients = [
            gradient + decay * tf.cast(value, gradient.dtype)
            for gradient, value in zip(gradients, values, strict=True)
        ]
        return loss, gradients, tf.math.is_finite(tf.linalg.global_norm(gradients))

    def _apply(self, domain: int, gradients: Sequence[tf.Tensor]) -> None:
        """Takes one replica's part in a step of the optimizers."""
        num_shared = len(self._shared)
        if self.shared_optimizer is not None:
            self.shared_optimizer.apply(gradients[:num_shared], self._shared)
        self.domain_optimizers[domain].apply(
            gradients[num_shared:], self.network.domain_variables(domain)
        )


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
