"""Dynamic loss scaling, which keeps small gradients from underflowing in float16.

Gradients below 6e-8 underflow to 0 in float16. The loss is therefore multiplied by a
large scale before it is differentiated, and the gradients are divided by it afterwards.
The scale is kept as large as possible: it is halved, and the step skipped, whenever a
gradient overflows; it is doubled after many steps without an overflow.
"""

from __future__ import annotations

import tensorflow as tf

INITIAL_LOSS_SCALE = 2.0**15
# Halving stops here: a gradient that still overflows would do so without scaling.
MIN_LOSS_SCALE = 1.0
GROWTH_STEPS = 2000


class LossScale(tf.Module):
    """The scale and its updates. Create it under the strategy's scope.

    Attributes:
      value: scalar float32 variable, the scale.
      finite_steps: scalar int64 variable, number of steps since the last change.
      skipped_steps: scalar int64 variable, number of steps skipped for overflow.

    Reference: Micikevicius et al., Mixed precision training, ICLR 2018, section 3.2.
    """

    def __init__(self) -> None:
        super().__init__(name="loss_scale")
        options = {
            "trainable": False,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.value = tf.Variable(INITIAL_LOSS_SCALE, dtype=tf.float32, **options)
        self.finite_steps = tf.Variable(0, dtype=tf.int64, **options)
        self.skipped_steps = tf.Variable(0, dtype=tf.int64, **options)

    def variables_by_path(self) -> dict[str, tf.Variable]:
        """Returns path -> variable; checkpoints store variables under these paths."""
        return {
            "value": self.value,
            "finite_steps": self.finite_steps,
            "steps_left_out": self.skipped_steps,
        }

    def read(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the current `skipped_steps` and `value`, without waiting for them."""
        return self.skipped_steps.read_value(), self.value.read_value()

    def update(self, finite: tf.Tensor) -> None:
        """Updates the scale after a step. Call it in cross-replica context.

        Args:
          finite: scalar bool, whether all gradients of the step were finite.
        """
        steps = tf.where(finite, self.finite_steps + 1, tf.zeros([], tf.int64))
        grown = steps >= GROWTH_STEPS
        up = tf.where(grown, self.value * 2.0, self.value)
        down = tf.maximum(self.value / 2.0, MIN_LOSS_SCALE)
        # Doubling must not reach infinity, with which everything would overflow.
        up = tf.where(tf.math.is_finite(up), up, self.value)
        self.value.assign(tf.where(finite, up, down))
        self.skipped_steps.assign_add(tf.cast(~finite, tf.int64))
        self.finite_steps.assign(tf.where(grown, tf.zeros_like(steps), steps))
