"""Metrics of an epoch, and totals over its steps."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.models.run_state import PartialEpoch
from u2net_tf.wording import duration, first_few


@dataclasses.dataclass(frozen=True)
class EpochMetrics:
    """Metrics of an epoch.

    Attributes:
      epoch: number of the epoch, from 1.
      step: number of steps done at its end.
      loss: mean training loss.
      loss_moving_average: moving average of the epochs' losses.
      learning_rate: learning rate of the epoch.
      seconds_per_step: mean duration of a step, including its input and compilation.
      input_wait_share: fraction of this time spent waiting for input.
      loss_by_domain: domain -> mean training loss; NaN if the domain had no step.
      seconds_compiling: duration of the steps with compilation; 0 if there were none.
      skipped_steps: number of steps whose gradients overflowed; None without loss
        scaling.
      dice: domain -> class or region -> mean Dice, NaN if it is undefined for all
        cases; empty without validation.
    """

    epoch: int
    step: int
    loss: float
    loss_moving_average: float
    learning_rate: float
    seconds_per_step: float
    input_wait_share: float
    loss_by_domain: Mapping[str, float]
    seconds_compiling: float = 0.0
    skipped_steps: int | None = None
    dice: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def summary(self) -> str:
        """Returns the metrics in one line, for the log; "–" for an undefined Dice."""
        text = (
            f"step {self.step}, loss {self.loss:.4f} (moving average "
            f"{self.loss_moving_average:.4f}), learning rate {self.learning_rate:.2g}, "
            f"{self.seconds_per_step:.2f} s per step, "
            f"{100 * self.input_wait_share:.0f} % of it waiting for data"
        )
        if self.seconds_compiling:
            text += f", {duration(self.seconds_compiling)} of compilation"
        scores = [
            f"{domain}/{name} {'–' if math.isnan(score) else f'{score:.3f}'}"
            for domain, by_name in self.dice.items()
            for name, score in by_name.items()
        ]
        return text + (f"; Dice: {', '.join(scores)}" if scores else "")


class EpochTotals:
    """Accumulates losses and durations over the steps of an epoch.

    Args:
      domains: names of the trained domains.
      partial: totals accumulated in this epoch by an earlier process.

    Raises:
      InputError: if `partial` is for other domains.

    Attributes:
      num_steps: number of added steps.
      skipped_steps: number of added steps whose gradients overflowed.
      seconds_compiling: duration of added steps with compilation.
    """

    def __init__(self, domains: Sequence[str], partial: PartialEpoch | None = None):
        self._losses: dict[str, list[float]] = {name: [] for name in domains}
        self._seconds_waiting = 0.0
        self._seconds_computing = 0.0
        self.seconds_compiling = 0.0
        self.skipped_steps = 0
        if partial is not None:
            if partial.losses.keys() != self._losses.keys():
                raise InputError(
                    "partial_epoch: losses",
                    expected=f"those of {first_few(domains)}",
                    received=f"those of {first_few(list(partial.losses))}",
                )
            for name, losses in partial.losses.items():
                self._losses[name].extend(losses)
            self._seconds_waiting = partial.seconds_waiting
            self._seconds_computing = partial.seconds_computing
            self.seconds_compiling = partial.seconds_compiling
            self.skipped_steps = partial.skipped_steps
        self.num_steps = sum(map(len, self._losses.values()))
        self._sum = math.fsum(itertools.chain(*self._losses.values()))

    def add(
        self,
        domain: str,
        loss: float,
        *,
        seconds_waiting: float,
        seconds_computing: float,
        compiled: bool = False,
        skipped: int = 0,
    ) -> None:
        """Adds a step.

        Args:
          domain: name of the step's domain.
          loss: training loss.
          seconds_waiting: time spent waiting for the batch.
          seconds_computing: duration of the rest of the step.
          compiled: whether the duration includes compilation.
          skipped: 1 if its gradient overflowed.
        """
        self._losses[domain].append(loss)
        self._seconds_waiting += seconds_waiting
        self._seconds_computing += seconds_computing
        self.seconds_compiling += seconds_computing if compiled else 0.0
        self.skipped_steps += skipped
        self.num_steps += 1
        self._sum += loss

    def to_partial(self) -> PartialEpoch:
        """Returns the state from which another process can continue."""
        return PartialEpoch(
            losses={name: tuple(losses) for name, losses in self._losses.items()},
            seconds_waiting=self._seconds_waiting,
            seconds_computing=self._seconds_computing,
            seconds_compiling=self.seconds_compiling,
            skipped_steps=self.skipped_steps,
        )

    def loss_so_far(self) -> float:
        """Returns the mean loss for display, equal to `loss` up to rounding."""
        return self._sum / self.num_steps

    def loss(self) -> float:
        """Returns the mean loss."""
        losses = [loss for values in self._losses.values() for loss in values]
        return float(np.mean(losses))

    def loss_by_domain(self) -> dict[str, float]:
        """Returns domain -> mean loss; NaN for a domain without steps."""
        return {
            name: float(np.mean(values)) if values else math.nan
            for name, values in self._losses.items()
        }

    def seconds_per_step(self) -> float:
        """Returns the mean duration of a step."""
        return (self._seconds_waiting + self._seconds_computing) / self.num_steps

    def input_wait_share(self) -> float:
        """Returns the fraction of the time spent waiting for batches."""
        total = self._seconds_waiting + self._seconds_computing
        return self._seconds_waiting / total
