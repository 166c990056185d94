"""Keeps a process that predicts within `max_memory_gb`, whatever is read ahead.

What the program, the model and a batch of windows take is not there for scans. Of these
one is predicted while others are read ahead: as many as fit beside it, so that the same
scans can be used however many are asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from absl import logging

from u2net_tf import machine
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.inference import case_memory
from u2net_tf.inference.predictor import Predictor
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.grid import Grid
from u2net_tf.volumes.memory import MemoryLimitError, limit_gb

_GB = 1e9

Case = TypeVar("Case")
Content = TypeVar("Content")


@dataclasses.dataclass(frozen=True)
class Need:
    """About how much memory a case takes, bytes.

    Attributes:
      preparation: while it is read and preprocessed, or waits.
      prediction: at any time, without what the network computes.
    """

    preparation: float = 0
    prediction: float = 0

    @classmethod
    def of_scan(
        cls, grid: Grid, domain: Domain, *, with_probabilities: bool = False
    ) -> Need:
        """That of a scan, by its header; 0 of one that no memory holds.

        Args:
          grid: of the scan.
          domain: what it is predicted as.
          with_probabilities: whether these are kept.
        """
        try:
            crop = case_memory.uncropped(grid, domain)
        except InputError:
            # Refused with the reason when it is read.
            return cls()
        return cls(
            case_memory.preparation_bytes(crop, domain.num_modalities),
            case_memory.prediction_bytes(
                crop, domain, with_probabilities=with_probabilities
            ),
        )


@dataclasses.dataclass(frozen=True)
class MemoryBudget:
    """What scans may take of the memory, GB.

    Attributes:
      limit_gb: of the process.
      taken_gb: of that, what is not there for scans.
    """

    limit_gb: float
    taken_gb: float

    @classmethod
    def of_process(
        cls, predictor: Predictor, indices: Sequence[int], reading: ReadingConfig
    ) -> MemoryBudget:
        """Looks at what the process takes now and will take for a network.

        Args:
          predictor: the model.
          indices: of the domains that are predicted.
          reading: gives the limit.
        """
        network = max(
            case_memory.network_bytes(predictor.spec, index, predictor.batch_size)
            for index in indices
        )
        taken = machine.resident_bytes() + network
        return cls(limit_gb(reading.max_memory_gb), taken / _GB)

    @property
    def remaining_gb(self) -> float:
        """What is there for scans; 0 if nothing is."""
        return max(0.0, self.limit_gb - self.taken_gb)

    def of_scans(self, reading: ReadingConfig) -> ReadingConfig:
        """The settings with what is there for scans as their limit."""
        return reading.model_copy(update={"max_memory_gb": self.remaining_gb})

    def of_workers(
        self, reading: ReadingConfig, needs: Sequence[Need]
    ) -> ReadingConfig:
        """The settings with as many scans to read ahead as fit beside the one in use.

        Args:
          reading: asks for a number.
          needs: of the cases; from above.
        """
        wanted = min(reading.num_workers, max(0, len(needs) - 1))
        in_use = max((need.prediction for need in needs), default=0)
        ahead = max((need.preparation for need in needs), default=0)
        number = wanted
        while number and in_use + number * ahead > self.remaining_gb * _GB:
            number -= 1
        if number < wanted:
            logging.info(
                "reading %d scans ahead instead of %d, to stay within %.3g GB "
                "(`max_memory_gb`)",
                number,
                wanted,
                self.limit_gb,
            )
        return reading.model_copy(update={"num_workers": number})

    def call(self, function: Callable[[Case], Content], case: Case) -> Content:
        """Calls a function; an error of the limit says what takes the rest of it.

        Args:
          function: takes a case.
          case: the case.
        """
        try:
            return function(case)
        except MemoryLimitError as error:
            raise error.within(
                "",
                separator="",
                hint=f"Of {self.limit_gb:.3g} GB, program and network take "
                f"{self.taken_gb:.3g}",
            ) from None
