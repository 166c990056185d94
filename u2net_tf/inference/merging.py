"""One label map of those of several domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


class Merging:
    """Adds label maps to one, in which those that were added before stay as they are.

    Args:
      shape: (z, y, x).
      values: domain -> the value of each of its classes; that of the background is 0.
    """

    def __init__(
        self, shape: tuple[int, int, int], values: Mapping[str, Sequence[int]]
    ):
        self._values = {name: np.array(row, np.uint8) for name, row in values.items()}
        self.classes = np.zeros(shape, np.uint8)
        self.overlaps: dict[tuple[str, str], int] = {}

    def add(self, domain: str, classes: np.ndarray) -> None:
        """Adds the label map of a domain, and counts what others hide of it.

        Args:
          domain: its name.
          classes: (z, y, x) class indices of that domain.
        """
        values = self._values[domain]
        hidden = np.zeros(2**8, np.int64)
        # Plane by plane: no mask of the whole volume is made.
        for merged, plane in zip(self.classes, classes, strict=True):
            found = plane > 0
            hidden += np.bincount(merged[found], minlength=2**8)
            free = found & (merged == 0)
            merged[free] = values[plane[free]]
        for other, row in self._values.items():
            count = int(hidden[row[row > 0]].sum())
            if count:
                self.overlaps[other, domain] = count
