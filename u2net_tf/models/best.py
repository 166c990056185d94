"""Which checkpoint of a run is the best so far."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

DICE = "validation Dice"
LOSS = "moving average of the loss"


@dataclasses.dataclass(frozen=True)
class Best:
    """A checkpoint and why it is the best.

    Attributes:
      step: its step.
      measure: `DICE`, the mean over all domains and classes that were scored, higher
        is better; or `LOSS`, of the training, lower is better.
      value: of that measure.
    """

    step: int
    measure: str
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


def candidate(row: Mapping[str, float], *, validated: bool) -> Best | None:
    """What an epoch's row of `training.csv` says of its checkpoint.

    Args:
      row: "step", "loss_moving_average" and, after a validation, "dice/…".
      validated: whether the run is validated, in this epoch or in others. Then an
        epoch without a validation is no candidate.
    """
    if not validated:
        return Best(row["step"], LOSS, row["loss_moving_average"])
    scores = [value for name, value in row.items() if name.startswith("dice/")]
    scores = [value for value in scores if not math.isnan(value)]
    return Best(row["step"], DICE, math.fsum(scores) / len(scores)) if scores else None
