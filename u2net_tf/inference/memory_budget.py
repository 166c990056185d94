"""Keeps prediction within `max_memory_gb`, however many scans are read ahead.

The program, the model and a batch of windows reduce the memory available for scans. One
scan is predicted while others are read ahead: as many as fit next to it, so that which
scans can be used does not depend on the requested number.
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
from u2net_tf.inference.ensemble import EnsembleBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.grid import Grid
from u2net_tf.volumes.memory import MemoryLimitError, limit_gb
from u2net_tf.volumes.preparation_memory import preparation_bytes, uncropped

_GB = 1e9

Case = TypeVar("Case")
Content = TypeVar("Content")


@dataclasses.dataclass(frozen=True)
class Need:
    """Estimated memory of a case, in bytes.

    Attributes:
      preparation: while the case is read and preprocessed, or waits.
      prediction: at any time, without the network's computation.
    """

    preparation: float = 0
    prediction: float = 0

    @classmethod
    def of_scan(
        cls, grid: Grid, domain: Domain, *, with_probabilities: bool = False
    ) -> Need:
        """Returns the need of a scan by its header; 0 if too large for any memory.

        Args:
          grid: grid of the scan.
          domain: domain that is predicted.
          with_probabilities: whether probabilities are kept.
        """
        try:
            crop = uncropped(grid, domain)
        except InputError:
            # Reading the scan raises an error with the reason.
            return cls()
        return cls(
            preparation_bytes(crop, domain.num_modalities),
            case_memory.prediction_bytes(
                crop, domain, with_probabilities=with_probabilities
            ),
        )


@dataclasses.dataclass(frozen=True)
class MemoryBudget:
    """Memory available for scans, in GB.

    Attributes:
      limit_gb: limit of the process.
      taken_gb: part of it that is not available for scans.
    """

    limit_gb: float
    taken_gb: float

    @classmethod
    def of_process(
        cls, networks: Sequence[tuple[Predictor, int]], reading: ReadingConfig
    ) -> MemoryBudget:
        """Returns the budget that the process and its networks leave.

        Args:
          networks: the model and the index of each domain that is predicted.
          reading: settings with the limit.
        """
        taken = machine.resident_bytes() + _network_bytes(networks)
        return cls(limit_gb(reading.max_memory_gb), taken / _GB)

    @property
    def remaining_gb(self) -> float:
        """Memory available for scans, at least 0."""
        return max(0.0, self.limit_gb - self.taken_gb)

    def of_scans(self, reading: ReadingConfig) -> ReadingConfig:
        """Returns the settings with the memory available for scans as their limit."""
        return reading.model_copy(update={"max_memory_gb": self.remaining_gb})

    def of_workers(
        self, reading: ReadingConfig, needs: Sequence[Need]
    ) -> ReadingConfig:
        """Returns the settings with the number of scans to read ahead that fit.

        Args:
          reading: settings with the requested number.
          needs: upper bounds of the needs of the cases.
        """
        requested = min(reading.num_workers, max(0, len(needs) - 1))
        in_use = max((need.prediction for need in needs), default=0)
        ahead = max((need.preparation for need in needs), default=0)
        number = requested
        while number and in_use + number * ahead > self.remaining_gb * _GB:
            number -= 1
        if number < requested:
            logging.info(
                "reading %d scans ahead instead of %d, to stay within %.3g GB "
                "(`max_memory_gb`)",
                number,
                requested,
                self.limit_gb,
            )
        return reading.model_copy(update={"num_workers": number})

    def call(self, function: Callable[[Case], Content], case: Case) -> Content:
        """Calls a function; adds the memory taken by the program to memory errors.

        Args:
          function: function of a case.
          case: argument of the function.
        """
        try:
            return function(case)
        except MemoryLimitError as error:
            raise error.within(
                "",
                separator="",
                hint=f"Of {self.limit_gb:.3g} GB, the program and the network take "
                f"{self.taken_gb:.3g}",
            ) from None


def _network_bytes(networks: Sequence[tuple[Predictor, int]]) -> float:
    """Estimates the bytes of networks, including those of ensembles."""
    exported, others = 0.0, 0.0
    for predictor, index in networks:
        backend, name = predictor.backend, predictor.spec.plan.names[index]
        members = backend.members if isinstance(backend, EnsembleBackend) else [backend]
        for each in members:
            number = case_memory.network_bytes(
                each.spec,
                each.spec.plan.index(name),
                predictor.batch_size,
                is_exported=each.is_exported,
            )
            if each.is_exported:
                # OpenVINO and ONNX Runtime keep the memory while others compute.
                exported += number
            else:
                others = max(others, number)
    return exported + others
