"""Scores of a predicted label map against a reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def annotated_only(
    reference: np.ndarray, prediction: np.ndarray, ignore_index: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns two label maps that are background where the reference is not annotated.

    Args:
      reference: (z, y, x) class indices or `ignore_index`.
      prediction: (z, y, x) class indices.
      ignore_index: index of voxels without annotation; None if there are none.

    Raises:
      ValueError: if the shapes differ.
    """
    _require_same_shape(reference, prediction)
    if ignore_index is None:
        return reference, prediction
    is_annotated = reference != ignore_index
    return reference * is_annotated, prediction * is_annotated


def region_masks(
    masks: tuple[np.ndarray, np.ndarray], classes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns masks that are 1 in a region and 0 elsewhere, uint8.

    Args:
      masks: class indices of the reference and of the prediction, (z, y, x) each.
      classes: class indices of the region.
    """
    reference, prediction = (np.isin(mask, classes).astype(np.uint8) for mask in masks)
    return reference, prediction


def _require_same_shape(reference: np.ndarray, prediction: np.ndarray) -> None:
    if reference.shape != prediction.shape:
        raise ValueError(
            "expected equal shapes. Received: "
            f"reference {reference.shape}, prediction {prediction.shape}"
        )


def dice(
    reference: np.ndarray, prediction: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Computes the Dice coefficient of every foreground class.

    Args:
      reference: (z, y, x) class indices.
      prediction: (z, y, x) class indices.
      num_classes: including the background.

    Returns:
      (num_classes - 1,) float64 from 0 to 1; NaN for a class that neither mask
      contains. (The published code counts it as 1.)

    Raises:
      ValueError: if the shapes differ or an index is not below `num_classes`.
    """
    _require_same_shape(reference, prediction)
    for name, array in (("reference", reference), ("prediction", prediction)):
        if array.size and not 0 <= array.min() <= array.max() < num_classes:
            raise ValueError(
                f"{name}: expected class indices from 0 to {num_classes - 1}. "
                f"Received: {array.min()} to {array.max()}"
            )
    table = _count_pairs(reference, prediction, num_classes)
    overlap = np.diag(table)[1:].astype(float)
    sizes = (table.sum(axis=0) + table.sum(axis=1))[1:]
    return np.divide(
        2 * overlap, sizes, out=np.full(num_classes - 1, np.nan), where=sizes > 0
    )


def false_positive_ml(
    reference: np.ndarray,
    prediction: np.ndarray,
    *,
    num_classes: int,
    voxel_ml: float,
) -> np.ndarray:
    """Computes the predicted volume of classes that the reference does not contain.

    For such classes, Dice does not distinguish a few voxels from an entire organ.

    Args:
      reference: (z, y, x) class indices.
      prediction: (z, y, x) class indices.
      num_classes: including the background.
      voxel_ml: volume of a voxel; see `class_volumes.voxel_volume_ml`.

    Returns:
      (num_classes - 1,) float64, millilitres; NaN for classes in the reference.
    """
    table = _count_pairs(reference, prediction, num_classes)
    present, predicted = table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    return np.where(present > 0, np.nan, predicted * voxel_ml)


def _count_pairs(
    reference: np.ndarray, prediction: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts the voxels with each class in the reference and in the prediction.

    Plane by plane, because NumPy counts 64-bit integers only.

    Args:
      reference: (z, y, x) class indices.
      prediction: (z, y, x) class indices.
      num_classes: including the background.

    Returns:
      (num_classes, num_classes) numbers of voxels, by the class in the reference and
      that in the prediction.
    """
    counts = np.zeros(num_classes**2, np.int64)
    for one, other in zip(reference, prediction, strict=True):
        pairs = one.astype(np.int64) * num_classes + other
        counts += np.bincount(pairs.ravel(), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)
