"""Which checkpoint of a run is the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from u2net_tf import schema
from u2net_tf.schema import Count

# As checkpoints have them.
Measure = Literal["validation Dice", "moving average of the loss"]
DICE, LOSS = get_args(Measure)


@schema.model
class Best:
    """A checkpoint and why it is the best.

    Attributes:
      step: its step.
      measure: `DICE`, the mean over all classes that were scored on validation cases,
        higher is better; or `LOSS`, of the training, lower is better.
      value: of that measure.
    """

    step: Count
    measure: Measure
    value: float

    def beats(self, other: Best | None) -> bool:
        """Whether it takes the place of another, which came before.

        A Dice beats any loss: a run may be validated from some epoch on, or no longer.
        """
        if other is None:
            return True
        if self.measure != other.measure:
            return self.measure == DICE
        gain = self.value - other.value
        return gain > 0 if self.measure == DICE else gain < 0


def candidate(row: Mapping[str, float], *, domains: Sequence[str]) -> Best | None:
    """What an epoch's row of `training.csv` says of its checkpoint.

    Args:
      row: "step", "loss_moving_average" and, after a validation, "dice/DOMAIN/…".
      domains: those that the run scores on validation cases, in this epoch or in
        others; an epoch without their scores is no candidate. Not those that it scores
        on test cases, which must not choose.
    """
    if not domains:
        return Best(row["step"], LOSS, row["loss_moving_average"])
    begins = tuple(f"dice/{domain}/" for domain in domains)
    scores = [value for name, value in row.items() if name.startswith(begins)]
    scores = [value for value in scores if not math.isnan(value)]
    return Best(row["step"], DICE, math.fsum(scores) / len(scores)) if scores else None
