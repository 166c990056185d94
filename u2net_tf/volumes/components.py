"""Connected components of label maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from u2net_tf.volumes.boxes import Box, bounding_box


def component_sizes(mask: np.ndarray) -> np.ndarray:
    """Returns the sizes of a mask's 26-connected components, in voxels, descending."""
    relabelled, _ = _components(mask)
    return np.bincount(relabelled.ravel())[1:]


def keep_largest(mask: np.ndarray, count: int) -> np.ndarray:
    """Returns the part of a mask in its `count` largest 26-connected components."""
    relabelled, box = _components(mask)
    kept = np.zeros(mask.shape, bool)
    kept[box] = (relabelled > 0) & (relabelled <= count)
    return kept


def clean_labels(
    labels: np.ndarray,
    keep_components: Sequence[int],
    *,
    keep_foreground_components: int = 0,
) -> np.ndarray:
    """Keeps the largest components; the rest becomes background.

    Components of the foreground are removed first, so that a class that touches others
    is not replaced by a false positive elsewhere, although that may be larger.

    Args:
      labels: (z, y, x) class indices.
      keep_components: number of components to keep per class; 0 keeps all. The entry of
        the background is ignored.
      keep_foreground_components: number of components of the foreground, that is, of
        all classes together, to keep; 0 keeps all.

    Returns:
      A new array of the same shape and dtype.
    """
    cleaned = labels.copy()
    if keep_foreground_components and labels.any():
        cleaned[~keep_largest(labels > 0, keep_foreground_components)] = 0
    for index, count in enumerate(keep_components):
        if index == 0 or count == 0:
            continue
        mask = cleaned == index
        if mask.any():
            cleaned[mask & ~keep_largest(mask, count)] = 0
    return cleaned


def _components(mask: np.ndarray) -> tuple[np.ndarray, Box]:
    """Returns components numbered by descending size, and the mask's bounding box.

    The box of an empty mask is its first voxel.
    """
    box = bounding_box(mask) or (slice(0, 1), slice(0, 1), slice(0, 1))
    image = sitk.GetImageFromArray(mask[box].astype(np.uint8))
    components = sitk.ConnectedComponent(image, True)
    ordered = sitk.RelabelComponent(components, sortByObjectSize=True)
    return sitk.GetArrayFromImage(ordered), box
