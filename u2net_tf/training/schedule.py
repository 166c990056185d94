"""The learning-rate schedule and the stopping rule: the paper's and the published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from u2net_tf.config.training import ScheduleConfig


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


def start(learning_rate: float) -> PlateauState:
    """The state before the first epoch."""
    return PlateauState(learning_rate=learning_rate)


def restored(rule: ScheduleConfig, fields: Mapping[str, Any]) -> PlateauState:
    """The state of a run that goes on, perhaps with another rule.

    Args:
      rule: the rule from now on. Of the saved state its end is told anew; the learning
        rate stays where it was. Where the kind of average is another one, the next
        look is a first look.
      fields: of the `PlateauState` that was saved, perhaps before there were windows.
    """
    state = PlateauState(**fields)
    same_average = bool(state.window) == (rule.loss_window_epochs > 0)
    return dataclasses.replace(
        state,
        reference=state.reference if same_average else None,
        finished=state.learning_rate < rule.min_learning_rate,
        window=tuple(state.window),
    )


def advance(rule: ScheduleConfig, state: PlateauState, loss: float) -> PlateauState:
    """The state after one more epoch.

    Args:
      rule: the rule.
      state: the state before it.
      loss: mean training loss of the epoch.
    """
    average, window = loss, ()
    if rule.loss_window_epochs:
        window = (*state.window, loss)[-rule.loss_window_epochs :]
        average = math.fsum(window) / len(window)
    elif state.moving_average is not None:
        average = (
            rule.loss_ema_decay * state.moving_average
            + (1 - rule.loss_ema_decay) * loss
        )
    epochs = state.epochs + 1
    learning_rate, reference = state.learning_rate, state.reference
    # The mean of a window that fills falls and rises with every epoch that joins.
    full = len(window) == rule.loss_window_epochs
    if full and epochs % rule.patience_epochs == 0:
        before = math.inf if reference is None else reference
        if average > before - rule.plateau_min_delta:
            # 1 / 0.2 is 5, but a product with 0.2 is not a fifth in its last bit.
            learning_rate /= 1 / rule.plateau_factor
        reference = average
    return PlateauState(
        learning_rate=learning_rate,
        epochs=epochs,
        moving_average=average,
        reference=reference,
        finished=learning_rate < rule.min_learning_rate,
        window=window,
    )
