"""The learning-rate schedule and the stopping rule: the paper's and the published."""

from __future__ import annotations

import dataclasses
import math

from u2net_tf.config.training import ScheduleConfig
from u2net_tf.models.run_state import PlateauState


def initial_state(learning_rate: float) -> PlateauState:
    """Returns the state before the first epoch."""
    return PlateauState(learning_rate=learning_rate)


def resumed(rule: ScheduleConfig, state: PlateauState) -> PlateauState:
    """Returns the state of a run that resumes, perhaps with another rule.

    Args:
      rule: the rule from now on. It decides whether training has ended; the learning
        rate is kept. If the kind of average has changed, the next comparison is the
        first one.
      state: the saved state.
    """
    same_average = bool(state.window) == (rule.loss_window_epochs > 0)
    return dataclasses.replace(
        state,
        reference=state.reference if same_average else None,
        finished=state.learning_rate < rule.min_learning_rate,
    )


def advance(rule: ScheduleConfig, state: PlateauState, loss: float) -> PlateauState:
    """Returns the state after one more epoch.

    Args:
      rule: the rule.
      state: the state before it.
      loss: mean training loss of the epoch.
    """
    average = loss
    window: tuple[float, ...] = ()
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
    # The mean of a window that fills changes with every epoch that is added.
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
