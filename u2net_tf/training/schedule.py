"""Learning-rate schedules: that of the paper and the published code, and nnU-Net's."""

from __future__ import annotations

import dataclasses
import math

from absl import logging

from u2net_tf.config.training import RunningConfig, ScheduleConfig
from u2net_tf.models.run_state import ScheduleState

# Settings that decide when the learning rate is reduced, unless it is a polynomial.
_OF_PLATEAUS = (
    "patience_epochs",
    "plateau_min_delta",
    "plateau_factor",
    "min_learning_rate",
)


def initial_state(learning_rate: float) -> ScheduleState:
    """Returns the state before the first epoch."""
    return ScheduleState(learning_rate=learning_rate)


def warn_of_unused_settings(config: ScheduleConfig) -> None:
    """Logs which settings have no effect although they are not the defaults."""
    default = ScheduleConfig()
    if config.learning_rate_schedule == "polynomial":
        unused = [
            f"`{name}`={getattr(config, name)}"
            for name in _OF_PLATEAUS
            if getattr(config, name) != getattr(default, name)
        ]
        if unused:
            logging.info(
                "without effect with `learning_rate_schedule`=polynomial: %s",
                ", ".join(unused),
            )
    elif config.polynomial_power != default.polynomial_power:
        logging.warning(
            "`polynomial_power`=%g has no effect with `learning_rate_schedule`=plateau",
            config.polynomial_power,
        )
    if config.loss_window_epochs and config.loss_ema_decay != default.loss_ema_decay:
        logging.warning(
            "`loss_ema_decay`=%g has no effect: with `loss_window_epochs`=%d, the "
            "schedule compares means over a window",
            config.loss_ema_decay,
            config.loss_window_epochs,
        )


def resumed(config: RunningConfig, state: ScheduleState) -> ScheduleState:
    """Returns the state of a resumed run, possibly with changed settings.

    Args:
      config: settings from now on. They decide whether training has ended. The learning
        rate is kept, unless it is a polynomial. If the kind of average has changed, the
        reference loss is reset.
      state: the saved state.
    """
    rule = config.schedule
    same_average = bool(state.window) == (rule.loss_window_epochs > 0)
    return _with_end(
        config,
        dataclasses.replace(state, reference=state.reference if same_average else None),
    )


def advance(config: RunningConfig, state: ScheduleState, loss: float) -> ScheduleState:
    """Returns the state after one more epoch.

    Args:
      config: settings of the run.
      state: the state before the epoch.
      loss: mean training loss of the epoch.
    """
    rule = config.schedule
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
    # The mean of an incomplete window changes with every epoch that is added.
    full = len(window) == rule.loss_window_epochs
    if full and epochs % rule.patience_epochs == 0:
        before = math.inf if reference is None else reference
        if average > before - rule.plateau_min_delta:
            # 1 / 0.2 is exactly 5; multiplying by 0.2 may differ in the last bit.
            learning_rate /= 1 / rule.plateau_factor
        reference = average
    return _with_end(
        config,
        ScheduleState(
            learning_rate=learning_rate,
            epochs=epochs,
            moving_average=average,
            reference=reference,
            window=window,
        ),
    )


def _with_end(config: RunningConfig, state: ScheduleState) -> ScheduleState:
    """Returns the state with the rate of a polynomial, and whether the run ends."""
    rule = config.schedule
    if rule.learning_rate_schedule == "plateau":
        finished = state.learning_rate < rule.min_learning_rate
        return dataclasses.replace(state, finished=finished)
    remaining = max(0.0, 1 - state.epochs / config.run.max_epochs)
    return dataclasses.replace(
        state,
        learning_rate=config.optimizer.learning_rate * remaining**rule.polynomial_power,
        finished=remaining == 0,
    )
