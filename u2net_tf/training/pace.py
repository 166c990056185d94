"""Estimate of the time left in a run, from its steps so far."""

from __future__ import annotations


class Pace:
    """Estimates the time left from the steps and validations of this process.

    Attributes:
      seconds_validating: duration of the last validation; 0 before the first.
    """

    def __init__(self) -> None:
        self.seconds_validating = 0.0
        self._num_steps = 0
        self._seconds = 0.0

    def add_step(self, seconds: float, *, compiled: bool) -> None:
        """Adds a step, which is ignored if it includes compilation.

        Args:
          seconds: its duration, including the wait for its batch.
          compiled: whether this includes compilation.
        """
        if not compiled:
            self._num_steps += 1
            self._seconds += seconds

    def seconds_left(self, num_steps: int, num_validations: int) -> float | None:
        """Returns the expected duration of both; None before the first step."""
        if not self._num_steps:
            return None
        per_step = self._seconds / self._num_steps
        return num_steps * per_step + num_validations * self.seconds_validating
