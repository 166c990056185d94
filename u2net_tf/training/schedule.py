"""The learning-rate schedule and the stopping rule: the paper's and the published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class PlateauRule:
    """When the learning rate falls and when training ends.

    A moving average of the epochs' training losses is looked at every
    `patience_epochs`. If it has not fallen by `min_fall` since the last look, the
    learning rate is divided by `factor`; training ends when it is below
    `min_learning_rate`. The average is exponential, as in the paper, or the mean of
    the last `window_epochs`, as in the published code, which looks at it after each
    epoch once there are that many.

    Attributes:
      learning_rate: the first one.
      patience_epochs: epochs between two looks.
      min_fall: of the moving average, in units of the loss.
      factor: above 1.
      min_learning_rate: below it training ends.
      decay: weight of the old moving average when an epoch's loss is added. The paper
        does not give it.
      window_epochs: of how many epochs' losses the mean is taken instead of the
        exponential average; 0 for the latter.

    Reference: 3D U²-Net, section 3, "Implementation details".
    """

    learning_rate: float = 3e-4
    patience_epochs: int = 30
    min_fall: float = 5e-4
    factor: float = 5.0
    min_learning_rate: float = 1e-8
    decay: float = 0.93
    window_epochs: int = 0

    def __post_init__(self):
        if not 0 < self.min_learning_rate <= self.learning_rate:
            raise ValueError(
                "learning_rate: expected at least min_learning_rate, above 0. "
                f"Received: {self.learning_rate} and {self.min_learning_rate}"
            )
        if self.patience_epochs < 1 or self.factor <= 1 or not 0 <= self.decay < 1:
            raise ValueError(
                "expected patience_epochs >= 1, factor > 1 and 0 <= decay < 1. "
                f"Received: {self}"
            )
        if self.window_epochs < 0:
            raise ValueError(f"expected window_epochs >= 0. Received: {self}")


@dataclasses.dataclass(frozen=True)
class PlateauState:
    """Where the schedule stands; goes into the checkpoint.

    Attributes:
      learning_rate: of the next epoch.
      epochs: epochs seen.
      moving_average: of their losses; None before the first. Of a window that is not
        full yet, the mean of what is in it.
      reference: the moving average at the last look; None before the first look.
      finished: whether training has ended.
      window: the losses that a windowed average is the mean of, oldest first; empty
        with the exponential average.
    """

    learning_rate: float
    epochs: int = 0
    moving_average: float | None = None
    reference: float | None = None
    finished: bool = False
    window: tuple[float, ...] = ()


def start(rule: PlateauRule) -> PlateauState:
    """The state before the first epoch."""
    return PlateauState(learning_rate=rule.learning_rate)


def restored(rule: PlateauRule, fields: Mapping[str, Any]) -> PlateauState:
    """The state of a run that goes on, perhaps with another rule.

    Args:
      rule: the rule from now on. Of the saved state its end is told anew; the learning
        rate stays where it was. Where the kind of average is another one, the next
        look is a first look.
      fields: of the `PlateauState` that was saved, perhaps before there were windows.
    """
    state = PlateauState(**fields)
    same_average = bool(state.window) == (rule.window_epochs > 0)
    return dataclasses.replace(
        state,
        reference=state.reference if same_average else None,
        finished=state.learning_rate < rule.min_learning_rate,
        window=tuple(state.window),
    )


def advance(rule: PlateauRule, state: PlateauState, loss: float) -> PlateauState:
    """The state after one more epoch.

    Args:
      rule: the rule.
      state: the state before it.
      loss: mean training loss of the epoch.
    """
    average, window = loss, ()
    if rule.window_epochs:
        window = (*state.window, loss)[-rule.window_epochs :]
        average = math.fsum(window) / len(window)
    elif state.moving_average is not None:
        average = rule.decay * state.moving_average + (1 - rule.decay) * loss
    epochs = state.epochs + 1
    learning_rate, reference = state.learning_rate, state.reference
    # The mean of a window that fills falls and rises with every epoch that joins.
    full = len(window) == rule.window_epochs
    if full and epochs % rule.patience_epochs == 0:
        before = math.inf if reference is None else reference
        if average > before - rule.min_fall:
            learning_rate /= rule.factor
        reference = average
    return PlateauState(
        learning_rate=learning_rate,
        epochs=epochs,
        moving_average=average,
        reference=reference,
        finished=learning_rate < rule.min_learning_rate,
        window=window,
    )
