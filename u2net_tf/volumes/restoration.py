"""From probabilities on the preprocessed grid to a label map on that of the scan.

Label map and probabilities follow one rule: probabilities are interpolated linearly,
and a voxel's label is the likeliest class. The clean-up of components comes after it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from u2net_tf.interpolation.positions import axis_positions
from u2net_tf.volumes.crop_and_resample import ResampledCrop


class Restoration:
    """Takes class probabilities back to the raw grid, and labels each voxel there.

    Probabilities are interpolated linearly between the centres of the preprocessed
    voxels, and constant beyond the outermost ones; a raw voxel gets its likeliest
    class. So a label map and the probabilities of the same scan never disagree. Outside
    of the crop the background is certain.

    Planes come one after the other, and two are held, not the volume.

    Args:
      crop: as `preprocess_image` returned it.
      num_classes: K, at most 256; class 0 is the background.
      with_probabilities: whether to keep them: K float32 for each raw voxel.
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
        """Takes the next plane along z of the preprocessed grid.

        Args:
          plane: (y, x, K) float32, probabilities. It is not kept.
        """
        z, y, x = self._axes
        # Class by class, all that follows reads and writes in the order of memory.
        resized = np.ascontiguousarray(plane.transpose(2, 0, 1), np.float32)
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
                between = resized - self._previous
                between *= weight
                between += self._previous
                self._restore(between)
        self._previous = resized
        self._num_added += 1

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """What was restored, once all planes were added.

        Returns:
          (Z, Y, X) uint8 class indices, the first of equally likely ones; and
          (Z, Y, X, K) float32 or None.
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
      first: for each new voxel, the old one at or before it.
      last: the old one that must be known as well: the next one, or the same where the
        weight is 0.
      weight: of the next one.
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
