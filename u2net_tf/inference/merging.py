"""Merges the label maps of several domains into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


class LabelMapMerger:
    """Merges label maps; earlier ones take precedence over later ones.

    Args:
      shape: z, y, x of the label maps.
      values: domain -> the value of each of its classes; 0 for the background.

    Attributes:
      classes: (z, y, x) uint8, the merged label map.
      overlaps: (hiding domain, hidden domain) -> number of voxels.
    """

    def __init__(
        self, shape: tuple[int, int, int], values: Mapping[str, Sequence[int]]
    ):
        self._values = {name: np.array(row, np.uint8) for name, row in values.items()}
        self.classes = np.zeros(shape, np.uint8)
        self.overlaps: dict[tuple[str, str], int] = {}

    def add(self, domain: str, classes: np.ndarray) -> None:
        """Adds the label map of a domain, and counts its voxels that others hide.

        Args:
          domain: name of the domain.
          classes: (z, y, x) class indices of that domain.
        """
        values = self._values[domain]
        hidden = np.zeros(2**8, np.int64)
        # Plane by plane, to avoid masks of the entire volume.
        for merged, plane in zip(self.classes, classes, strict=True):
            found = plane > 0
            hidden += np.bincount(merged[found], minlength=2**8)
            free = found & (merged == 0)
            merged[free] = values[plane[free]]
        for other, row in self._values.items():
            count = int(hidden[row[row > 0]].sum())
            if count:
                self.overlaps[other, domain] = count
