"""Thumbnails of cases: one slice, small enough to store for thousands of cases."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence

import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.visualization import slices
from u2net_tf.volumes.grid import Volume, reorient_to

# Maximum number of rows and columns of a thumbnail.
MAX_PIXELS = 256
# Class of label values that do not belong to any class.
UNLISTED = np.iinfo(np.uint16).max


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """An axial slice with the patient's right on the left and the front at the top.

    Attributes:
      grey: (rows, columns) uint8.
      classes: (rows, columns) uint16; 0 for background, k for the k-th label value that
        is not 0, `UNLISTED` for any other.
      aspect: height of a pixel divided by its width.
      index: index of the slice, from the feet.
      num_slices: number of slices of the volume.
      has_labels: whether there is a label map on the grid of the image.
    """

    grey: np.ndarray
    classes: np.ndarray
    aspect: float
    index: int
    num_slices: int
    has_labels: bool


def make_thumbnail(
    image: Volume,
    labels: Volume | None,
    values: Sequence[int],
    *,
    ignore_label: int | None = None,
) -> Thumbnail:
    """Returns the slice with the most foreground, or the middle one without foreground.

    If a slice has more voxels than a thumbnail has pixels, a pixel is the mean of the
    intensities and the maximum of the classes, so that no label is lost.

    Args:
      image: (C, z, y, x), of which the first modality is shown.
      labels: (z, y, x); None if unreadable. Labels on a different grid are not shown.
      values: the label values of the classes in order, including 0.
      ignore_label: value of voxels without annotation, which are shown as background.
    """
    turned = None
    if labels is not None:
        with contextlib.suppress(InputError):
            turned = reorient_to(labels, image.grid)
    if turned is not None and ignore_label is not None:
        turned = np.where(turned == ignore_label, 0, turned)
    volume = image.data[0]
    index = len(volume) // 2 if turned is None else slices.choose_slice(turned)
    plane = volume[index]
    finite = np.isfinite(plane)
    if not finite.all():
        lowest = plane[finite].min() if finite.any() else 0
        plane = np.where(finite, plane, np.float32(lowest))
    classes = np.zeros(plane.shape, np.uint16)
    if turned is not None:
        classes[turned[index] != 0] = UNLISTED
        for number, value in enumerate((v for v in values if v), start=1):
            classes[turned[index] == value] = number
    low, high = slices.choose_window(plane, classes > 0)
    rows, columns = (math.ceil(size / MAX_PIXELS) for size in plane.shape)
    grey = np.clip((_blocks(plane, rows, columns).mean(axis=(1, 3)) - low), 0, None)
    grey = np.minimum(grey / (high - low), 1) * 255
    _, spacing_y, spacing_x = image.spacing_mm
    return Thumbnail(
        grey=slices.as_picture(np.rint(grey).astype(np.uint8)),
        classes=slices.as_picture(_blocks(classes, rows, columns).max(axis=(1, 3))),
        aspect=spacing_y * rows / (spacing_x * columns),
        index=index,
        num_slices=len(volume),
        has_labels=turned is not None,
    )


def _blocks(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Returns blocks of pixels (R, rows, C, columns); the last ones repeat the edge."""
    margins = [
        (0, -size % step)
        for size, step in zip(plane.shape, (rows, columns), strict=True)
    ]
    padded = np.pad(plane, margins, mode="edge")
    height, width = padded.shape
    return padded.reshape(height // rows, rows, width // columns, columns)


def save_thumbnail(path: str | os.PathLike, thumbnail: Thumbnail) -> None:
    """Writes a thumbnail as a `.npz` file, atomically."""
    with files.atomic_write(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **dataclasses.asdict(thumbnail))


def load_thumbnail(path: str | os.PathLike) -> Thumbnail:
    """Reads a file of `save_thumbnail`."""
    with np.load(path) as fields:
        return Thumbnail(
            grey=fields["grey"],
            classes=fields["classes"],
            aspect=float(fields["aspect"]),
            index=int(fields["index"]),
            num_slices=int(fields["num_slices"]),
            has_labels=bool(fields["has_labels"]),
        )
