"""Sliding-window prediction of a volume: geometry and blending.

Only the accumulator and one batch of windows with its predictions are kept in memory.
If only the label map is requested, the accumulator has the depth of a window instead of
the volume: windows are sorted by their first planes, and a plane that no later window
covers is converted to labels and reused.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from u2net_tf.progress import Progress, silent
from u2net_tf.volumes.boxes import Box

PredictFunction = Callable[[np.ndarray], np.ndarray]
# A window, and whether it is empty.
Window = tuple[Box, bool]

# A volume that is predicted sooner needs no progress bar.
_BAR_AFTER_SECONDS = 5


def window_starts(size: int, patch: int, stride: int) -> list[int]:
    """Returns the starts of windows along an axis; the last one ends at the border.

    Args:
      size: voxels of the volume, at least `patch`.
      patch: voxels of a window.
      stride: voxels between the starts of windows, at least 1.
    """
    if size < patch or stride < 1:
        raise ValueError(
            "expected size >= patch and stride >= 1. Received: "
            f"size={size}, patch={patch}, stride={stride}"
        )
    starts = list(range(0, size - patch, stride))
    return [*starts, size - patch]


def count_windows(
    shape: Sequence[int], patch_size: Sequence[int], overlap: float
) -> int:
    """Returns the number of windows of `predict_volume` for a shape z, y, x."""
    return len(_Windows.over(shape, patch_size, overlap).boxes)


def blending_weights(patch_size: Sequence[int]) -> np.ndarray:
    """Returns weights that fall linearly with the distance from the patch's centre.

    The distance is Euclidean, in voxels; the weight would reach 0 at the patch's outer
    corner, half a voxel beyond the corner voxel, so it is positive everywhere. (The
    published code gives the corner voxel the weight 0.)

    Returns:
      (z, y, x) float32, all above 0 and at most 1.
    """
    squares = np.zeros(tuple(patch_size))
    for axis, size in enumerate(patch_size):
        offsets = np.arange(size) + 0.5 - size / 2
        squares += np.expand_dims(
            offsets**2, tuple(other for other in range(3) if other != axis)
        )
    corner = np.sqrt(sum((size / 2) ** 2 for size in patch_size))
    return (1 - np.sqrt(squares) / corner).astype(np.float32)


def predict_volume(
    image: np.ndarray,
    predict: PredictFunction,
    *,
    patch_size: Sequence[int],
    num_classes: int,
    overlap: float = 0.5,
    batch_size: int = 1,
    is_empty: Callable[[Box], bool] | None = None,
    with_probabilities: bool = False,
    on_plane: Callable[[np.ndarray], None] | None = None,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predicts the labels of a volume and, if requested, its class probabilities.

    Args:
      image: (z, y, x, C) float32. Along axes on which it is smaller than a window, it
        is padded on both sides with each modality's minimum, as in training.
      predict: (N, *patch_size, C) float32 -> (N, *patch_size, K) probabilities.
      patch_size: z, y, x.
      num_classes: K, at most 256.
      overlap: fraction of a window that the next one along an axis overlaps, from 0 to
        below 1; the stride is rounded to at least one voxel.
      batch_size: windows per call of `predict`; the last call may have fewer.
      is_empty: returns whether a box of the image is empty. Empty windows are not
        predicted, but blended with their neighbours as background (class 0) of
        probability 1. None predicts every window.
      with_probabilities: whether to keep them: K float32 for each voxel.
      on_plane: called with the probabilities of each plane along z, in order, as soon
        as it is complete: (y, x, K) float32, overwritten after the call.
      progress: shows the progress over windows of volumes that take a while.

    Returns:
      (z, y, x) uint8, the most probable class of each voxel, the first of equally
      probable ones; and (z, y, x, K) float32 that sum to 1 over the classes as those of
      `predict` do, or None.

    Raises:
      ValueError: if an argument is out of range or `predict` returns the wrong shape.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected 0 <= overlap < 1. Received: {overlap}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1. Received: {batch_size}")
    if not 1 <= num_classes <= 256:
        raise ValueError(f"num_classes: expected 1 to 256. Received: {num_classes}")
    windows = _Windows.over(image.shape[:3], patch_size, overlap)
    blender = _Blender(
        windows,
        image.shape[:3],
        num_classes,
        keep=with_probabilities,
        on_plane=on_plane,
    )
    padding = np.zeros(image.shape[3], image.dtype)
    if windows.are_padded:
        padding = image.min(axis=(0, 1, 2))
    bar = progress(
        total=len(windows.boxes),
        desc="windows",
        unit="window",
        leave=False,
        delay=_BAR_AFTER_SECONDS,
    )
    with bar:
        for batch in _batches(windows.boxes, is_empty, batch_size):
            boxes = [box for box, empty in batch if not empty]
            # No variable refers to a batch, which would keep it while the next is made.
            blender.add(
                batch,
                _predict(predict, windows.crop(image, boxes, padding), num_classes)
                if boxes
                else (),
            )
            bar.update(len(batch))
    return blender.finish()


@dataclasses.dataclass(frozen=True)
class _Windows:
    """Locations of windows in a volume.

    Attributes:
      patch_size: z, y, x of a window.
      inner: part of a window that is inside the volume; the rest is padding.
      boxes: part of the volume that each window covers, sorted by first plane.
    """

    patch_size: tuple[int, int, int]
    inner: Box
    boxes: list[Box]

    @classmethod
    def over(
        cls, shape: Sequence[int], patch_size: Sequence[int], overlap: float
    ) -> _Windows:
        inner, slices = [], []
        for size, patch in zip(shape, patch_size, strict=True):
            covered = min(size, patch)
            gap = (patch - covered) // 2
            inner.append(slice(gap, gap + covered))
            starts = window_starts(size, covered, max(1, round(patch * (1 - overlap))))
            slices.append([slice(start, start + covered) for start in starts])
        depth, height, width = patch_size
        z, y, x = inner
        boxes = list(itertools.product(slices[0], slices[1], slices[2]))
        return cls((depth, height, width), (z, y, x), boxes)

    @property
    def are_padded(self) -> bool:
        return any(
            part.stop - part.start < patch
            for part, patch in zip(self.inner, self.patch_size, strict=True)
        )

    def crop(
        self, image: np.ndarray, boxes: Sequence[Box], padding: np.ndarray
    ) -> np.ndarray:
        """Returns windows (N, *patch_size, C) of the image, padded with `padding`."""
        windows = np.empty((len(boxes), *self.patch_size, image.shape[3]), image.dtype)
        if self.are_padded:
            windows[...] = padding
        for window, box in zip(windows, boxes, strict=True):
            window[self.inner] = image[box]
        return windows


class _Blender:
    """Accumulates weighted probabilities, and finishes planes that are complete."""

    def __init__(
        self,
        windows: _Windows,
        shape: Sequence[int],
        num_classes: int,
        *,
        keep: bool,
        on_plane: Callable[[np.ndarray], None] | None,
    ):
        weights = blending_weights(windows.patch_size)[windows.inner]
        self._inner = windows.inner
        self._keep = keep
        self._on_plane = on_plane
        self._sums = (
            _WeightSums(windows.boxes, weights, shape) if keep or on_plane else None
        )
        # Repeated for every class: a product of equal shapes takes half the time.
        self._weights = np.repeat(weights[..., np.newaxis], num_classes, axis=-1)
        self._background = np.broadcast_to(
            np.eye(1, num_classes, dtype=np.float32), self._weights.shape
        )
        depth = shape[0] if keep else len(weights)
        # Plane z of the volume is plane z % depth here.
        self._total = np.zeros((depth, *shape[1:], num_classes), np.float32)
        self._classes = np.empty(shape, np.uint8)
        self._num_finished = 0

    def add(self, batch: Sequence[Window], predicted: Iterable[np.ndarray]) -> None:
        """Adds windows, with predictions of those that are not empty."""
        rows = iter(predicted)
        for box, empty in batch:
            self._finish_planes(box[0].start)
            self._add(box, self._background if empty else next(rows)[self._inner])

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns classes and, if they are kept, probabilities."""
        self._finish_planes(len(self._classes))
        return self._classes, self._total if self._keep else None

    def _add(self, box: Box, probabilities: np.ndarray) -> None:
        # Plane by plane, so that intermediate results stay in the cache.
        product = np.empty(probabilities.shape[1:], np.float32)
        depth = len(self._total)
        for k, z in enumerate(range(box[0].start, box[0].stop)):
            np.multiply(probabilities[k], self._weights[k], out=product)
            self._total[z % depth, box[1], box[2]] += product

    def _finish_planes(self, stop: int) -> None:
        for z in range(self._num_finished, stop):
            plane = self._total[z % len(self._total)]
            # The sum of weights is the same for all classes: the argmax ignores it.
            self._classes[z] = plane.argmax(axis=-1)
            if self._sums is not None:
                plane /= self._sums.plane(z)[..., np.newaxis]
            if self._on_plane is not None:
                self._on_plane(plane)
            if not self._keep:
                plane[...] = 0
            self._num_finished = z + 1


class _WeightSums:
    """The sum of the weights of all windows that cover each voxel.

    The sum over windows with the same first plane does not depend on that plane, so it
    is only kept for the depth of one window.
    """

    def __init__(self, boxes: Sequence[Box], weights: np.ndarray, shape: Sequence[int]):
        self._starts = sorted({box[0].start for box in boxes})
        self._layer = np.zeros((len(weights), *shape[1:]), np.float32)
        for box in boxes:
            if box[0].start == 0:
                self._layer[:, box[1], box[2]] += weights

    def plane(self, z: int) -> np.ndarray:
        """Returns the sums (y, x) float32 of a plane."""
        depth = len(self._layer)
        rows = (self._layer[z - s] for s in self._starts if s <= z < s + depth)
        return functools.reduce(np.add, rows)


def _batches(
    boxes: Iterable[Box], is_empty: Callable[[Box], bool] | None, batch_size: int
) -> Iterator[list[Window]]:
    """Yields windows in order, in batches of at most `batch_size` non-empty ones."""
    batch: list[Window] = []
    num_non_empty = 0
    for box in boxes:
        empty = is_empty is not None and is_empty(box)
        batch.append((box, empty))
        num_non_empty += not empty
        if num_non_empty == batch_size:
            yield batch
            batch, num_non_empty = [], 0
    if batch:
        yield batch


def _predict(
    predict: PredictFunction, windows: np.ndarray, num_classes: int
) -> np.ndarray:
    predicted = predict(windows)
    expected = (*windows.shape[:4], num_classes)
    if predicted.shape != expected:
        raise ValueError(
            f"predict: expected an array of shape {expected}. Received: "
            f"{predicted.shape}"
        )
    return predicted
