"""Sliding window over a volume: geometry and blending, for any predict function."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

PredictFunction = Callable[[np.ndarray], np.ndarray]


def window_starts(size: int, patch: int, stride: int) -> list[int]:
    """Starts of the windows along one axis; the last lies flush with the border.

    Args:
      size: voxels of the volume, at least `patch`.
      patch: voxels of a window.
      stride: voxels between windows, at least 1.
    """
    if size < patch or stride < 1:
        raise ValueError(
            "expected size >= patch and stride >= 1. Received: "
            f"size={size}, patch={patch}, stride={stride}"
        )
    starts = list(range(0, size - patch, stride))
    return [*starts, size - patch]


def blending_weights(patch_size: Sequence[int]) -> np.ndarray:
    """Weights that fall linearly with the distance from the patch's centre.

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
) -> np.ndarray:
    """Class probabilities of a whole volume.

    Holds one accumulator of the volume's size and one batch of windows.

    Args:
      image: (z, y, x, C) float32. Padded to the patch where it is smaller, with each
        modality's minimum, as `input.patches.cut_patch` does.
      predict: (N, *patch_size, C) float32 -> (N, *patch_size, K) probabilities.
      patch_size: z, y, x.
      num_classes: K.
      overlap: share of a window that the next one along an axis covers again, 0 to
        below 1; the stride is rounded to at least one voxel.
      batch_size: windows per call of `predict`; the last call may have fewer.

    Returns:
      (z, y, x, K) float32 that sum to 1 over the classes as those of `predict` do.

    Raises:
      ValueError: if an argument is out of range or `predict` returns another shape.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected 0 <= overlap < 1. Received: {overlap}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1. Received: {batch_size}")
    padded, inner = _pad(image, patch_size)
    weights = blending_weights(patch_size)[..., None]
    total = np.zeros((*padded.shape[:3], num_classes), np.float32)
    weight_sum = np.zeros((*padded.shape[:3], 1), np.float32)
    for boxes in _batches(_windows(padded.shape, patch_size, overlap), batch_size):
        predicted = predict(np.stack([padded[box] for box in boxes]))
        expected = (len(boxes), *patch_size, num_classes)
        if predicted.shape != expected:
            raise ValueError(
                f"predict: expected an array of shape {expected}. Received: "
                f"{predicted.shape}"
            )
        for box, probabilities in zip(boxes, predicted, strict=True):
            total[box] += probabilities * weights
            weight_sum[box] += weights
    total /= weight_sum
    return total[inner]


def _pad(image, patch_size):
    """The volume, at least as large as the patch, and where the volume lies in it."""
    missing = [
        max(patch - size, 0)
        for patch, size in zip(patch_size, image.shape[:3], strict=True)
    ]
    inner = tuple(
        slice(gap // 2, gap // 2 + size)
        for gap, size in zip(missing, image.shape[:3], strict=True)
    )
    if not any(missing):
        return image, inner
    shape = [gap + size for gap, size in zip(missing, image.shape[:3], strict=True)]
    padded = np.empty((*shape, image.shape[3]), image.dtype)
    padded[...] = image.min(axis=(0, 1, 2))
    padded[inner] = image
    return padded, inner


def _windows(shape, patch_size, overlap) -> Iterator[tuple[slice, ...]]:
    starts = [
        window_starts(size, patch, max(1, round(patch * (1 - overlap))))
        for size, patch in zip(shape[:3], patch_size, strict=True)
    ]
    for corner in itertools.product(*starts):
        yield tuple(
            slice(start, start + patch)
            for start, patch in zip(corner, patch_size, strict=True)
        )


def _batches(items: Iterator, size: int) -> Iterator[list]:
    while batch := list(itertools.islice(items, size)):
        yield batch
