"""The criterion for the best checkpoint of a run."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal, get_args

from u2net_tf import schema
from u2net_tf.schema import Step

# Names in checkpoints.
Measure = Literal["validation Dice", "moving average of the loss"]
DICE, LOSS = get_args(Measure)


@schema.model
class Best:
    """A checkpoint and why it is the best.

    Attributes:
      step: training step of the checkpoint.
      measure: `DICE`, the mean over all classes scored on validation cases, where
        higher is better, or `LOSS`, the training loss, where lower is better.
      value: value of the measure.
    """

    step: Step
    measure: Measure
    value: float

    def beats(self, other: Best | None) -> bool:
        """Returns whether it replaces an earlier one.

        A Dice beats any loss, since validation may be switched on or off during a run.
        """
        if other is None:
            return True
        if self.measure != other.measure:
            return self.measure == DICE
        gain = self.value - other.value
        return gain > 0 if self.measure == DICE else gain < 0


def candidate(
    step: int,
    *,
    loss_moving_average: float,
    dice: Mapping[str, Mapping[str, float]],
    classes: Mapping[str, Collection[str]],
) -> Best | None:
    """Returns the candidate for the best checkpoint; None if the epoch is not eligible.

    Args:
      step: step of the checkpoint.
      loss_moving_average: moving average of the training loss.
      dice: domain -> class or region -> mean Dice, NaN if undefined for all cases;
        empty for an epoch without validation.
      classes: domain -> its classes, for the domains that the run scores on validation
        cases, in this or any other epoch; an epoch without their scores is not
        eligible. Domains that are scored on test cases are excluded, since test cases
        must not select a model.
    """
    if not classes:
        return Best(step, LOSS, loss_moving_average)
    scores = [
        score
        for domain, by_name in dice.items()
        for name, score in by_name.items()
        if name in classes.get(domain, ()) and not math.isnan(score)
    ]
    return Best(step, DICE, math.fsum(scores) / len(scores)) if scores else None
