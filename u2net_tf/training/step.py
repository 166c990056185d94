"""The training step: one compiled function per domain.

A step of one domain reads and changes the shared variables and the domain's own, and
nothing else: no gradient, no momentum, no decay reaches another domain. There is one
Adam for the shared variables and one per domain, so that each corrects its bias by the
number of its own steps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from u2net_tf.losses import segmentation_loss
from u2net_tf.training.adam import TorchAdam
from u2net_tf.training.loss_scale import MIN_LOSS_SCALE, LossScale


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
        self._detach_focal_factor = detach_focal_factor
        self.train_shared = train_shared
        self._shared = network.shared_variables if train_shared else []
        decay = {"l2_factor": weight_decay}
        with self.strategy.scope():
            self.shared_optimizer = None
            if train_shared:
                self.shared_optimizer = TorchAdam(learning_rate, name="shared", **decay)
                self.shared_optimizer.build(self._shared)
            self.domain_optimizers = {}
            for domain in self.domains:
                name = f"domain_{domain}"
                optimizer = TorchAdam(learning_rate, name=name, **decay)
                optimizer.build(network.domain_variables(domain))
                self.domain_optimizers[domain] = optimizer
            half = network.compute_dtype == "float16"
            self.loss_scale = LossScale() if half else None
        self._steps = {domain: self._make_step(domain) for domain in self.domains}
        self._twins = self._find_twins()
        self._rebound = {}

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

    def variables_by_path(self) -> Mapping[str, keras.Variable | tf.Variable]:
        """Path -> variable, of what a checkpoint must hold besides the network."""
        paths = self.network.variables_by_path()
        names = {id(variable): path for path, variable in paths.items()}
        parts = {
            f"optimizer/domain_{domain}": optimizer.variables_by_path(names)
            for domain, optimizer in self.domain_optimizers.items()
        }
        if self.shared_optimizer:
            parts["optimizer/shared"] = self.shared_optimizer.variables_by_path(names)
        if self.loss_scale:
            parts["loss_scale"] = self.loss_scale.variables_by_path()
        return {
            f"{part}/{path}": variable
            for part, variables in parts.items()
            for path, variable in variables.items()
        }

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
        images, labels = batch["image"], batch["labels"]
        return float(self._compiled(domain, images, labels)(images, labels))

    def _own_state(self, domain: int) -> Sequence[keras.Variable]:
        """Variables and optimizer state used by this domain only."""
        optimizer = self.domain_optimizers[domain]
        return [*self.network.domain_variables(domain), *optimizer.variables]

    def _find_twins(self) -> Mapping[int, int]:
        """For each domain the first one whose step is the same but for variables."""
        firsts, twins = {}, {}
        for domain in self.domains:
            state = [variable.value for variable in self._own_state(domain)]
            signature = (
                self.network.num_modalities[domain],
                self.network.num_classes[domain],
                tuple((tuple(value.shape), value.dtype) for value in state),
            )
            if any(isinstance(v, tf.distribute.DistributedValues) for v in state):
                signature = domain
            twins[domain] = firsts.setdefault(signature, domain)
        return twins

    def _compiled(
        self, domain: int, images: tf.Tensor, labels: tf.Tensor
    ) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """The step of this domain, which may be that of its twin with other variables.

        To compile a step takes several times as long as to run it.
        """
        twin = self._twins[domain]
        if twin == domain or tf.config.functions_run_eagerly():
            return self._steps[domain]
        key = (domain, *map(tf.TensorSpec.from_tensor, (images, labels)))
        if key not in self._rebound:
            compiled = self._steps[twin].get_concrete_function(images, labels)
            self._rebound[key] = _rebind(
                compiled, self._own_state(twin), self._own_state(domain)
            )
        return self._rebound[key]

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

        @tf.function(autograph=False)
        def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            if self.loss_scale is not None:
                return scaled_step(images, labels)
            losses = strategy.run(whole_step, args=(images, labels))
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

        return step

    def _differentiate(
        self, domain: int, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        """Loss, gradients, and whether these are finite, of one replica."""
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
            scale = self.loss_scale.value.read_value()
            gradients = [gradient / scale for gradient in gradients]
        return loss, gradients, tf.math.is_finite(tf.linalg.global_norm(gradients))

    def _apply(self, domain: int, gradients: Sequence[tf.Tensor]) -> None:
        """Takes one replica's part in a step of the optimizers."""
        num_shared = len(self._shared)
        if self.shared_optimizer is not None:
            self.shared_optimizer.apply(gradients[:num_shared], self._shared)
        self.domain_optimizers[domain].apply(
            gradients[num_shared:], self.network.domain_variables(domain)
        )


def _rebind(
    compiled: tf.types.experimental.ConcreteFunction,
    variables: Sequence[keras.Variable],
    replacements: Sequence[keras.Variable],
) -> tf.types.experimental.ConcreteFunction:
    """Returns the same compiled function on other variables.

    TensorFlow hands a function the variables it was traced with as further inputs, of
    which it knows no more than shape and type.

    Args:
      compiled: any.
      variables: those that it reads or changes and shall not.
      replacements: one for each, of the same shape and type.

    Raises:
      ValueError: if it does not use all of `variables`.
    """
    handles = {
        id(variable.value.handle): replacement.value.handle
        for variable, replacement in zip(variables, replacements, strict=True)
    }
    captures = compiled.captured_inputs
    if not handles.keys() <= set(map(id, captures)):
        raise ValueError("`compiled` must use all of `variables`.")
    rebound = copy.copy(compiled)
    rebound.set_external_captures([handles.get(id(c), c) for c in captures])
    return rebound
