"""Metrics of an epoch, and the totals over its steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class EpochMetrics:
    """Metrics of an epoch.

    Attributes:
      epoch: number of the epoch, from 1.
      step: number of steps done at its end.
      loss: mean training loss.
      loss_moving_average: moving average of the epochs' losses.
      learning_rate: learning rate of the epoch.
      seconds_per_step: mean duration of a step, with its input.
      input_wait_share: fraction of it that was spent waiting for input.
      loss_by_domain: domain -> mean training loss; NaN without a step of the domain.
      skipped_steps: number of steps whose gradients overflowed; None if the loss is not
        scaled.
      dice: domain -> class -> mean Dice, NaN where no case has one; empty without a
        validation.
    """

    epoch: int
    step: int
    loss: float
    loss_moving_average: float
    learning_rate: float
    seconds_per_step: float
    input_wait_share: float
    loss_by_domain: Mapping[str, float]
    skipped_steps: int | None = None
    dice: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def summary(self) -> str:
        """Returns the metrics in one line, for the log."""
        text = (
            f"step {self.step}, loss {self.loss:.4f} (moving average "
            f"{self.loss_moving_average:.4f}), learning rate {self.learning_rate:.2g}, "
            f"{self.seconds_per_step:.2f} s per step, "
            f"{100 * self.input_wait_share:.0f} % of it waiting for data"
        )
        scores = [
            f"{domain}/{label} {score:.3f}"
            for domain, by_class in self.dice.items()
            for label, score in by_class.items()
        ]
        return text + (f"; Dice: {', '.join(scores)}" if scores else "")


class EpochTotals:
    """Accumulates losses and durations over the steps of an epoch.

    Args:
      domains: names of the trained domains.
    """

    def __init__(self, domains: Sequence[str]):
        self._losses: dict[str, list[float]] = {name: [] for name in domains}
        self._seconds_waiting = 0.0
        self._seconds_computing = 0.0

    def add(
        self,
        domain: str,
        loss: float,
        *,
        seconds_waiting: float,
        seconds_computing: float,
    ) -> None:
        """Adds a step.

        Args:
          domain: name of the step's domain.
          loss: training loss.
          seconds_waiting: time spent waiting for the batch.
          seconds_computing: duration of the rest of the step.
        """
        self._losses[domain].append(loss)
        self._seconds_waiting += seconds_waiting
        self._seconds_computing += seconds_computing

    def loss(self) -> float:
        """Mean loss."""
        losses = [loss for values in self._losses.values() for loss in values]
        return float(np.mean(losses))

    def loss_by_domain(self) -> dict[str, float]:
        """Domain -> mean loss; NaN for a domain without a step."""
        return {
            name: float(np.mean(values)) if values else math.nan
            for name, values in self._losses.items()
        }

    def seconds_per_step(self) -> float:
        """Mean duration of a step."""
        num_steps = sum(map(len, self._losses.values()))
        return (self._seconds_waiting + self._seconds_computing) / num_steps

    def input_wait_share(self) -> float:
        """Fraction of the time spent waiting for batches."""
        total = self._seconds_waiting + self._seconds_computing
        return self._seconds_waiting / total
