"""Adam as in PyTorch, with one fused operation per variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

# PyTorch's default, which the published code uses; Keras' own is 1e-7.
EPSILON = 1e-8


class AdamState(NamedTuple):
    """The variables that a step of `TorchAdam` changes.

    A `tf.function` can take it as an argument, so that optimizers whose variables have
    the same shapes share one trace.

    Attributes:
      trained: the trained variables.
      momentums: first moments of these variables.
      velocities: second moments of these variables.
      iterations: scalar int64, number of steps taken.
      learning_rate: scalar float32.
      averages: moving averages of the trained variables; empty without averaging.
    """

    trained: tuple[tf.Variable, ...]
    momentums: tuple[tf.Variable, ...]
    velocities: tuple[tf.Variable, ...]
    iterations: tf.Variable
    learning_rate: tf.Variable
    averages: tuple[tf.Variable, ...] = ()


class _Factors(NamedTuple):
    """Scalars used in the update of every variable."""

    learning_rate: tf.Tensor
    epsilon: tf.Tensor
    beta_1: tf.Tensor
    beta_2: tf.Tensor
    weight_decay: tf.Tensor
    zero: tf.Tensor
    # Weight of the new value in the moving average.
    new_weight: tf.Tensor


class TorchAdam(keras.optimizers.Adam):
    """Adam with L2 regularization in the gradient, as in the paper.

    PyTorch adds ε to the root of the bias-corrected second moment, Keras to that of the
    uncorrected one, which makes ε 30 times as large at the first step. Both corrections
    can be folded into learning rate and ε, which leaves TensorFlow's fused operation: a
    network has hundreds of variables, and without fusion most operations of a step
    would be Adam's.

    Its variables are those of Keras' Adam. It uses Keras' private attributes
    `_momentums`, `_velocities`, `_model_variables_moving_average` and
    `_trainable_variables`.

    With `ema_decay`, it keeps exponential moving averages of the variables. After n
    steps, the decay is min(`ema_decay`, n / (n + 9)), so that early values are soon
    forgotten.

    Args:
      learning_rate: initial learning rate.
      l2_factor: factor of a variable that is added to its gradient; not decoupled.
      beta_1: decay of the first moment.
      beta_2: decay of the second moment.
      epsilon: added to the root of the corrected second moment.
      ema_decay: decay of the moving averages, from 0 to below 1; 0 for none.
      name: name of the optimizer's variables.

    Reference: Kingma and Ba, Adam, ICLR 2015, section 2, last remark; Polyak and
    Juditsky, Acceleration of stochastic approximation by averaging, SIAM Journal on
    Control and Optimization 1992.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        l2_factor: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = EPSILON,
        ema_decay: float = 0.0,
        name: str = "torch_adam",
    ):
        super().__init__(
            learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            use_ema=ema_decay > 0,
            ema_momentum=ema_decay,
            name=name,
        )
        self.l2_factor = l2_factor

    def apply(
        self,
        grads: Sequence[tf.Tensor],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Takes a step; under a strategy, one replica's part of it.

        Args:
          grads: gradients of the variables that the optimizer was built with, in the
            same order; summed over the replicas.
          trainable_variables: the variables that the optimizer was built with, or None.

        Raises:
          ValueError: if `trainable_variables` are other variables.
        """
        variables = self._trainable_variables
        if trainable_variables is not None and list(map(id, variables)) != list(
            map(id, trainable_variables)
        ):
            raise ValueError(
                "`trainable_variables` must be those that the optimizer was built "
                f"with. Received: trainable_variables={trainable_variables}"
            )
        self.update_state(self.state(), grads)

    def state(self) -> AdamState:
        """Returns the optimizer's variables and those that it trains."""
        return AdamState(
            trained=tuple(variable.value for variable in self._trainable_variables),
            momentums=tuple(variable.value for variable in self._momentums),
            velocities=tuple(variable.value for variable in self._velocities),
            iterations=self.iterations.value,
            learning_rate=self.learning_rate.value,
            averages=tuple(average.value for _, average in self.averages()),
        )

    def averages(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Returns the trained variables with their averages; empty without averaging.

        Before the first step, the averages are 0.
        """
        if not self.use_ema:
            return []
        averages = self._model_variables_moving_average
        return list(zip(self._trainable_variables, averages, strict=True))

    def update_state(self, state: AdamState, grads: Sequence[tf.Tensor]) -> None:
        """Takes a step with this optimizer's settings and the variables of `state`.

        Args:
          state: state of this optimizer, or of another one whose variables have the
            same shapes; no other variables are changed.
          grads: see `apply`.
        """
        if not state.trained:
            return
        strategy = tf.distribute.get_strategy()
        if strategy.num_replicas_in_sync > 1:
            grads = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, list(grads)
            )

        def update_all(
            strategy: tf.distribute.Strategy,
            gradients: Sequence[tf.Tensor],
            factors: _Factors,
        ) -> None:
            for variable, momentum, velocity, gradient, average in zip(
                state.trained,
                state.momentums,
                state.velocities,
                gradients,
                state.averages or [None] * len(state.trained),
                strict=True,
            ):
                strategy.extended.update(
                    variable,
                    self._update,
                    args=(momentum, velocity, gradient, average, factors),
                    group=False,
                )

        tf.__internal__.distribute.interim.maybe_merge_call(
            update_all, strategy, list(grads), self._factors(state)
        )
        state.iterations.assign_add(1)

    def variables_by_path(self, names: Mapping[int, str]) -> dict[str, keras.Variable]:
        """Returns path -> variable; checkpoints store variables under these paths.

        Args:
          names: id of a trained variable -> its path in the network.
        """
        found = {"iterations": self.iterations, "learning_rate": self.learning_rate}
        slots = {"momentum": self._momentums, "velocity": self._velocities}
        if self.use_ema:
            # The averages are saved as the variables of the network.
            slots["weight"] = self._trainable_variables
        for slot, variables in slots.items():
            for trained, variable in zip(
                self._trainable_variables, variables, strict=True
            ):
                found[f"{slot}/{names[id(trained)]}"] = variable
        return found

    def _factors(self, state: AdamState) -> _Factors:
        """Returns the factors of the next step.

        Computed in float64, because 1 - 0.999 has a relative error of 1e-5 in float32,
        and with the decays as rounded to the dtype of the operation.
        """
        dtype = tf.as_dtype(state.trained[0].dtype).as_numpy_dtype
        step = tf.cast(state.iterations + 1, tf.float64)
        beta_1, beta_2 = np.array([self.beta_1, self.beta_2], dtype).astype(np.float64)
        correction_1 = 1.0 - tf.pow(beta_1, step)
        correction_2 = tf.sqrt(1.0 - tf.pow(beta_2, step))
        learning_rate = tf.cast(state.learning_rate, tf.float64)
        taken = step - 1.0
        decay = tf.minimum(
            tf.constant(self.ema_momentum, tf.float64), taken / (taken + 9)
        )
        factors = _Factors(
            learning_rate=learning_rate * correction_2 / correction_1,
            epsilon=self.epsilon * correction_2,
            beta_1=beta_1,
            beta_2=beta_2,
            weight_decay=np.float64(self.l2_factor),
            zero=np.float64(0.0),
            new_weight=1.0 - decay,
        )
        return _Factors(*(tf.cast(factor, dtype) for factor in factors))

    def _update(
        self,
        variable: tf.Variable,
        momentum: tf.Variable,
        velocity: tf.Variable,
        gradient: tf.Tensor,
        average: tf.Variable | None,
        factors: _Factors,
    ) -> None:
        """Updates one replica's copy of a variable, its moments and its average."""
        if self.l2_factor:
            gradient += factors.weight_decay * variable
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            # Zero, or the operation would correct the bias a second time.
            beta1_power=factors.zero,
            beta2_power=factors.zero,
            lr=factors.learning_rate,
            beta1=factors.beta_1,
            beta2=factors.beta_2,
            epsilon=factors.epsilon,
            grad=gradient,
        )
        if average is not None:
            average.assign_add((variable - average) * factors.new_weight)
