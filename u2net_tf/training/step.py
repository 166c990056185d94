"""The training step: one compiled function for domains of the same shapes.

A step of one domain reads and changes the shared variables and the domain's own, and
nothing else: no gradient, momentum or decay affects another domain. There is one
Adam for the shared variables and one per domain, so that each corrects its bias by the
number of its own steps.

Tracing and compiling a step takes several times as long as running it. Therefore the
compiled function takes the domain's variables as arguments, and domains whose
variables have the same shapes share one function.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from u2net_tf.networks.device_memory import describe_variables, reporting_exhausted
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.training import head_weights as heads
from u2net_tf.training.adam import AdamState, TorchAdam
from u2net_tf.training.compiled_steps import CompiledSteps
from u2net_tf.training.differentiation import Differentiation, LossAndGradients
from u2net_tf.training.domain_losses import DomainLoss
from u2net_tf.training.gate_loss import NO_GATES, GateLoss, dropout_seed
from u2net_tf.training.loss_scale import MIN_LOSS_SCALE, LossScale
from u2net_tf.training.optimizers import make_optimizers
from u2net_tf.training.shared_traces import domains_sharing_a_trace
from u2net_tf.training.weight_averages import WeightAverages


class Trainer:
    """Takes optimizer steps.

    Args:
      network: the network, built under `strategy`'s scope. If its dtype policy
        computes in float16, the loss is scaled.
      learning_rate: initial learning rate of Adam.
      weight_decay: L2 factor, added to the gradient as weight_decay * variable before
        Adam (as the paper's PyTorch does), not decoupled.
      weight_ema_decay: decay of moving averages of the variables; 0 for none. See
        `make_optimizers`.
      detach_focal_factor: see `losses.focal`.
      head_weights: weights of the heads, if there are several; see `head_weights`.
      gate_loss: loss of the gates, if there are any; see `GateLoss`.
      seed: seed of the gates' dropout.
      strategy: distribution strategy; TensorFlow's default if None.
      domain_losses: see `Differentiation`.
      domains: indices of the domains to train, in the order of their turns; all if
        None. The variables of other domains do not change.
      train_shared: whether to train the shared variables; False when a domain is added.
      jit_compile: whether XLA compiles each step as one module; with several replicas,
        the loss and gradients of each replica as one module.
      implementation: implementation of the operations, see `ops.use_implementation`. If
        None, "xla_module" with `jit_compile`, otherwise the current one.

    Raises:
      StoppedError: if the memory of the device does not suffice for the optimizers.

    Reference: 3D U²-Net, sections 2.4 and 3.
    """

    def __init__(
        self,
        network: DomainModel,
        *,
        learning_rate: float,
        weight_decay: float,
        weight_ema_decay: float = 0.0,
        detach_focal_factor: bool = False,
        head_weights: heads.HeadWeights | None = None,
        gate_loss: GateLoss = NO_GATES,
        seed: int = 0,
        strategy: tf.distribute.Strategy | None = None,
        domain_losses: Sequence[DomainLoss] = (),
        domains: Sequence[int] | None = None,
        train_shared: bool = True,
        jit_compile: bool = False,
        implementation: str | None = None,
    ):
        self.network = network
        self.strategy = strategy or tf.distribute.get_strategy()
        self.jit_compile = jit_compile
        self.domains = tuple(range(network.num_domains) if domains is None else domains)
        self.train_shared = train_shared
        self._shared = network.shared_variables if train_shared else []
        with reporting_exhausted(describe_variables), self.strategy.scope():
            self.shared_optimizer, self.domain_optimizers = make_optimizers(
                network,
                self.domains,
                train_shared=train_shared,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                weight_ema_decay=weight_ema_decay,
            )
            self.averages = WeightAverages(self.optimizers)
            is_scaled = network.compute_dtype == "float16"
            self.loss_scale = LossScale() if is_scaled else None
        self._differentiate = Differentiation(
            network,
            self._shared,
            num_replicas=self.strategy.num_replicas_in_sync,
            loss_scale=self.loss_scale,
            detach_focal_factor=detach_focal_factor,
            head_weights=head_weights,
            gate_loss=gate_loss,
            domain_losses=domain_losses,
        )
        self._dropout_keys = gate_loss.dropout_keys(seed, self.domains)
        self._states = {
            domain: optimizer.state()
            for domain, optimizer in self.domain_optimizers.items()
        }
        traced = domains_sharing_a_trace(network, self._states, domain_losses)
        if jit_compile:
            implementation = implementation or "xla_module"
        self._steps: dict[int, tf.types.experimental.PolymorphicFunction] = {
            each: self.step_function(
                each, jit_compile=jit_compile, implementation=implementation
            )
            for each in set(traced.values())
        }
        self._compiled_steps = CompiledSteps(self._steps, traced, self.strategy)

    @property
    def optimizers(self) -> Sequence[TorchAdam]:
        """The shared optimizer, if there is one, then one per trained domain."""
        shared = [self.shared_optimizer] if self.shared_optimizer else []
        return [*shared, *self.domain_optimizers.values()]

    @property
    def trained_variables(self) -> Sequence[keras.Variable]:
        """The variables that steps update."""
        per_domain = (self.network.domain_variables(each) for each in self.domains)
        return [*self._shared, *(v for variables in per_domain for v in variables)]

    def variables_by_path(self) -> Mapping[str, keras.Variable | tf.Variable]:
        """Returns path -> variable of a checkpoint, except those of the network.

        With averages, they are saved under the paths of the network, and the trained
        variables themselves under those of the optimizers.
        """
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
        if averages := self.averages.by_path(names):
            parts["network"] = averages
        return {
            f"{part}/{path}": variable
            for part, variables in parts.items()
            for path, variable in variables.items()
        }

    def set_learning_rate(self, value: float) -> None:
        """Sets the learning rate of every optimizer."""
        for optimizer in self.optimizers:
            optimizer.learning_rate.assign(value)

    def skipped_steps(self) -> int:
        """Returns the number of steps whose gradients overflowed; 0 without scaling."""
        return int(self.loss_scale.skipped_steps.numpy()) if self.loss_scale else 0

    def is_compiled(self, domain: int, batch: Mapping[str, tf.Tensor]) -> bool:
        """Returns whether a step with the shapes of the domain and batch was taken."""
        return self._compiled_steps.is_compiled(domain, batch)

    def step(self, domain: int, batch: Mapping[str, tf.Tensor]) -> float:
        """Takes one step.

        Args:
          domain: index of the domain that the batch is from.
          batch: {"image": (B, z, y, x, C), "labels": (B, z, y, x)}, per replica if
            the dataset was distributed.

        Returns:
          The loss before the step, mean over the replicas; NaN if the gradient's norm
          is not finite. With loss scaling, such a step changes nothing but the scale,
          and a finite loss becomes NaN only if the scale is at its minimum. A loss that
          is not finite itself is returned at any scale.
        """
        return float(self.start_step(domain, batch))

    def start_step(self, domain: int, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Starts a step like `step`, and returns the loss as a tensor.

        On a GPU it may still be computing; reading its value waits for it.
        """
        arguments = [self._states[domain], batch["image"], batch["labels"]]
        if self._dropout_keys:
            arguments.append(self._dropout_keys[domain])
        return self._compiled_steps.call(domain, batch, arguments)

    def state(self, domain: int) -> AdamState:
        """Returns the domain's variables and optimizer state, an argument of a step."""
        return self._states[domain]

    def step_function(
        self,
        domain: int,
        *,
        jit_compile: bool = False,
        implementation: str | None = None,
    ) -> tf.types.experimental.PolymorphicFunction:
        """Returns the step function of a domain and of others with equal shapes.

        Args:
          domain: index of the domain.
          jit_compile: see `Trainer`.
          implementation: implementation of the operations; the one that is current
            when the function is traced if None.

        Returns:
          A `tf.function` that returns the loss as `step` does. Its arguments are
          `state(domain)`, images, labels and, with gates, the domain's key from
          `GateLoss.dropout_keys`.
        """
        if jit_compile and self.strategy.num_replicas_in_sync > 1:
            # A module has a single device, so that the optimizers are not part of it.
            jit_compile = False
            differentiate = self._differentiate.as_module(
                domain, implementation=implementation
            )
        else:
            differentiate = functools.partial(
                self._differentiate, domain, implementation=implementation
            )
        unscaled, scaled = self._step_unscaled, self._step_scaled

        @tf.function(autograph=False, jit_compile=jit_compile)
        def step(
            state: AdamState,
            images: tf.Tensor,
            labels: tf.Tensor,
            *key: tf.Tensor,
        ) -> tf.Tensor:
            def run(*batch: tf.Tensor) -> LossAndGradients:
                seed = dropout_seed(key[0], state.iterations) if key else None
                return differentiate(state.trained, *batch, dropout_seed=seed)

            if self.loss_scale is None:
                return unscaled(run, domain, state, images, labels)
            return scaled(self.loss_scale, run, domain, state, images, labels)

        return step

    def _step_unscaled(
        self,
        differentiate: Callable[..., LossAndGradients],
        domain: int,
        state: AdamState,
        images: tf.Tensor,
        labels: tf.Tensor,
    ) -> tf.Tensor:
        def step_replica(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            loss, gradients, finite = differentiate(images, labels)
            self._apply(domain, state, gradients)
            # A gradient that is not finite corrupts variables and moments, although
            # the loss of this batch may be finite.
            return tf.where(finite, loss, tf.constant(math.nan, loss.dtype))

        losses = self.strategy.run(step_replica, args=(images, labels))
        return self.strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

    def _step_scaled(
        self,
        scale: LossScale,
        differentiate: Callable[..., LossAndGradients],
        domain: int,
        state: AdamState,
        images: tf.Tensor,
        labels: tf.Tensor,
    ) -> tf.Tensor:
        strategy = self.strategy
        loss, gradients, finite = strategy.run(differentiate, (images, labels))
        # Either all replicas take the step or none, so `cond` is outside of them.
        num_finite = strategy.reduce(
            tf.distribute.ReduceOp.SUM,
            strategy.run(lambda flag: tf.cast(flag, tf.int32), (finite,)),
            axis=None,
        )
        finite = tf.equal(num_finite, strategy.num_replicas_in_sync)

        def apply() -> tf.Tensor:
            strategy.run(
                lambda values: self._apply(domain, state, values), (gradients,)
            )
            return tf.constant(True)

        tf.cond(finite, apply, lambda: tf.constant(False))
        loss = strategy.reduce(tf.distribute.ReduceOp.MEAN, loss, axis=None)
        at_minimum = scale.value <= MIN_LOSS_SCALE
        scale.update(finite)
        return tf.where(at_minimum & ~finite, tf.constant(math.nan, loss.dtype), loss)

    def _apply(
        self, domain: int, state: AdamState, gradients: Sequence[tf.Tensor]
    ) -> None:
        """Takes one replica's part of a step of the optimizers."""
        num_shared = len(self._shared)
        if self.shared_optimizer is not None:
            self.shared_optimizer.apply(gradients[:num_shared], self._shared)
        self.domain_optimizers[domain].update_state(state, gradients[num_shared:])
