"""Learning-rate schedule and stopping rule of the paper and of the published code."""

from __future__ import annotations

import dataclasses
import math

from absl import logging

from u2net_tf.config.training import ScheduleConfig
from u2net_tf.models.run_state import PlateauState


def initial_state(learning_rate: float) -> PlateauState:
    """Returns the state before the first epoch."""
    return PlateauState(learning_rate=learning_rate)


def warn_of_unused_settings(config: ScheduleConfig) -> None:
    """Logs a warning if a decay was chosen for an average that has none."""
    default = ScheduleConfig().loss_ema_decay
    if config.loss_window_epochs and config.loss_ema_decay != default:
        logging.warning(
            "`loss_ema_decay`=%g has no effect: with `loss_window_epochs`=%d, the "
            "schedule compares means over a window",
            config.loss_ema_decay,
            config.loss_window_epochs,
        )


def resumed(config: ScheduleConfig, state: PlateauState) -> PlateauState:
    """Returns the state of a resumed run, possibly with changed settings.

    Args:
      config: settings from now on. They decide whether training has ended; the
        learning rate is kept. If the kind of average has changed, the reference loss is
        reset.
      state: the saved state.
    """
    same_average = bool(state.window) == (config.loss_window_epochs > 0)
    return dataclasses.replace(
        state,
        reference=state.reference if same_average else None,
        finished=state.learning_rate < config.min_learning_rate,
    )


def advance(config: ScheduleConfig, state: PlateauState, loss: float) -> PlateauState:
    """Returns the state after one more epoch.

    Args:
      config: settings of the schedule.
      state: the state before the epoch.
      loss: mean training loss of the epoch.
    """
    average = loss
    window: tuple[float, ...] = ()
    if config.loss_window_epochs:
        window = (*state.window, loss)[-config.loss_window_epochs :]
        average = math.fsum(window) / len(window)
    elif state.moving_average is not None:
        average = (
            config.loss_ema_decay * state.moving_average
            + (1 - config.loss_ema_decay) * loss
        )
    epochs = state.epochs + 1
    learning_rate, reference = state.learning_rate, state.reference
    # The mean of an incomplete window changes with every epoch that is added.
    full = len(window) == config.loss_window_epochs
    if full and epochs % config.patience_epochs == 0:
        before = math.inf if reference is None else reference
        if average > before - config.plateau_min_delta:
            # 1 / 0.2 is exactly 5; multiplying by 0.2 may differ in the last bit.
            learning_rate /= 1 / config.plateau_factor
        reference = average
    return PlateauState(
        learning_rate=learning_rate,
        epochs=epochs,
        moving_average=average,
        reference=reference,
        finished=learning_rate < config.min_learning_rate,
        window=window,
    )
