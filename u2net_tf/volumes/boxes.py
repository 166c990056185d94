"""Boxes of voxels in a volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[slice, slice, slice]


def bounding_box(voxels: np.ndarray) -> Box | None:
    """Returns the bounding box of the voxels other than 0; None if there are none.

    Args:
      voxels: (z, y, x), of any type.
    """
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hits = np.flatnonzero(np.any(voxels, axis=others))
        if hits.size == 0:
            return None
        box.append(slice(int(hits[0]), int(hits[-1]) + 1))
    z, y, x = box
    return z, y, x


def add_margin(box: Box, margin_voxels: int, bounds: Sequence[int]) -> Box:
    """Widens a box on every side, within the bounds of the volume.

    Args:
      box: the box.
      margin_voxels: voxels to add on every side.
      bounds: shape of the volume.
    """
    z, y, x = (
        slice(max(part.start - margin_voxels, 0), min(part.stop + margin_voxels, size))
        for part, size in zip(box, bounds, strict=True)
    )
    return z, y, x
