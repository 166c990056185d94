"""Resampling of probabilities to the grid of the scan, and labels from them.

Label map and probabilities follow one rule: probabilities are interpolated linearly,
and a voxel's label is the most probable class. Components are filtered afterwards.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from u2net_tf.interpolation.positions import axis_positions
from u2net_tf.volumes.crop_and_resample import ResampledCrop


class Restoration:
    """Resampler of class probabilities to the raw grid, which also labels its voxels.

    Probabilities are interpolated linearly between the centres of the preprocessed
    voxels, and constant beyond the outermost ones; a raw voxel gets its most probable
    class. So the label map and the probabilities of a scan never disagree. Outside the
    crop, the probability of the background is 1.

    Planes are added one by one, and two are kept in memory instead of the volume.

    Args:
      crop: as returned by `preprocess_image`.
      num_classes: K, at most 256; class 0 is the background.
      with_probabilities: whether to keep the probabilities: K float32 per raw voxel.
    """

    def __init__(
        self,
        crop: ResampledCrop,
        num_classes: int,
        *,
        with_probabilities: bool = False,
    ):
        self._axes = [
            _LinearAxis.resizing(new, old)
            for new, old in zip(crop.crop_shape, crop.shape, strict=True)
        ]
        self._previous: np.ndarray | None = None
        self._num_added = self._num_restored = 0
        self._classes = np.zeros(crop.raw_shape, np.uint8)
        self._classes_in_crop = self._classes[crop.box]
        self._probabilities = self._probabilities_in_crop = None
        if with_probabilities:
            shape = (*crop.raw_shape, num_classes)
            self._probabilities = np.zeros(shape, np.float32)
            self._probabilities[..., 0] = 1
            self._probabilities_in_crop = self._probabilities[crop.box]

    def add(self, plane: np.ndarray) -> None:
        """Adds the next plane along z of the preprocessed grid.

        Args:
          plane: (y, x, K) float32 probabilities. The array is not kept.
        """
        z, y, x = self._axes
        # Classes first, so that everything below accesses memory in order.
        # A copy also for a single voxel, whose transpose is contiguous.
        resized = np.array(plane.transpose(2, 0, 1), np.float32, order="C")
        resized = x.resize(y.resize(resized, axis=1), axis=2)
        while (
            self._num_restored < len(z.last)
            and z.last[self._num_restored] == self._num_added
        ):
            weight = z.weight[self._num_restored]
            if weight == 0:
                self._restore(resized)
            else:
                assert self._previous is not None  # the first plane's weight is 0
                interpolated = resized - self._previous
                interpolated *= weight
                interpolated += self._previous
                self._restore(interpolated)
        self._previous = resized
        self._num_added += 1

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the result after all planes have been added.

        Returns:
          (Z, Y, X) uint8 class indices, the lowest of equally probable ones; and
          (Z, Y, X, K) float32 probabilities or None.
        """
        if self._num_restored < len(self._axes[0].last):
            raise ValueError(
                "expected all planes of the preprocessed volume. Received: "
                f"{self._num_added}"
            )
        return self._classes, self._probabilities

    def _restore(self, plane: np.ndarray) -> None:
        """Stores the next plane of the crop: (K, y, x), on the raw grid."""
        classes = self._classes_in_crop[self._num_restored]
        best = plane[0].copy()
        for k in range(1, len(plane)):
            np.copyto(classes, k, where=plane[k] > best)
            np.maximum(best, plane[k], out=best)
        if self._probabilities_in_crop is not None:
            kept = self._probabilities_in_crop[self._num_restored]
            kept[...] = plane.transpose(1, 2, 0)
        self._num_restored += 1


@dataclasses.dataclass(frozen=True)
class _LinearAxis:
    """Linear interpolation along one axis.

    Attributes:
      first: for each new voxel, the old voxel at or before it.
      last: the other old voxel that is needed: the next one, or the same if the weight
        is 0.
      weight: weight of the next one.
    """

    first: np.ndarray
    last: np.ndarray
    weight: np.ndarray

    @classmethod
    def resizing(cls, new: int, old: int) -> _LinearAxis:
        positions = np.clip(axis_positions(new, old), 0, old - 1)
        first = np.floor(positions).astype(int)
        weight = (positions - first).astype(np.float32)
        return cls(first, first + (weight > 0), weight)

    def resize(self, array: np.ndarray, *, axis: int) -> np.ndarray:
        if not self.weight.any() and len(self.first) == array.shape[axis]:
            return array
        resized = array.take(self.first, axis)
        change = array.take(self.last, axis)
        change -= resized
        shape = [1] * array.ndim
        shape[axis] = -1
        change *= self.weight.reshape(shape)
        resized += change
        return resized
