"""Label maps of cases: their checks, and raw values and class indices.

Survey, convert and evaluate all use these checks and no others.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import images
from u2net_tf.volumes.grid import Grid, Volume, check_same_grid, reorient_to
from u2net_tf.wording import first_few, quantity

# Kinds of label map faults.
GEOMETRY, UNKNOWN_LABEL, EMPTY_LABEL = "geometry", "unknown label", "empty label"
UNANNOTATED = "unannotated"


def label_faults(
    labels: Volume,
    image: Volume | None,
    *,
    known: Sequence[int],
    ignore_label: int | None = None,
) -> dict[str, str]:
    """Describes the faults of a label map by their kind; empty if there are none.

    Args:
      labels: (z, y, x) raw values as returned by `images.load_labels`.
      image: the image that the label map belongs to; None if it cannot be read.
      known: raw values of the classes.
      ignore_label: raw value of voxels without annotation; None if there is none.
    """
    allowed = [*known] if ignore_label is None else [*known, ignore_label]
    checks = {
        UNKNOWN_LABEL: lambda: _check_known(labels, allowed),
        UNANNOTATED: lambda: _check_annotated(labels, ignore_label),
        EMPTY_LABEL: lambda: _check_foreground(labels, ignore_label),
    }
    if image is not None:
        grids = (image.grid, labels.grid)
        checks = {GEOMETRY: lambda: check_same_grid(*grids)} | checks
    faults = {}
    for kind, check in checks.items():
        try:
            check()
        except InputError as error:
            faults[kind] = error.problem
    return faults


def _check_known(labels: Volume, known: Sequence[int], hint: str = "") -> None:
    """Checks that only known raw values occur; the error counts the other ones."""
    allowed = set(known)
    unknown = [
        f"{value} in {quantity(count, 'voxel')}"
        for value, count in count_values(labels.data).items()
        if value not in allowed
    ]
    if unknown:
        raise InputError(
            labels.grid.path,
            expected=f"labels among {first_few(sorted(allowed), limit=20)}",
            received=first_few(unknown),
            hint=hint,
        )


def require_known(labels: Volume, domain: Domain) -> None:
    """Checks that a label map contains only 0 and the values of a domain's classes.

    Raises:
      InputError: if it contains other values; names them.
    """
    values = [value for label in domain.labels for value in label.values]
    _check_known(labels, [0, *values])


def _check_annotated(labels: Volume, ignore_label: int | None) -> None:
    if ignore_label is not None and (labels.data == ignore_label).all():
        raise InputError(
            labels.grid.path,
            expected="annotated voxels",
            received=f"only the ignore label, {ignore_label}",
        )


def _check_foreground(labels: Volume, ignore_label: int | None) -> None:
    foreground = labels.data != 0
    if ignore_label is not None:
        foreground &= labels.data != ignore_label
    if not foreground.any():
        raise InputError(
            labels.grid.path, expected="foreground", received="an empty label map"
        )


def count_values(labels: np.ndarray) -> dict[int, int]:
    """Counts the voxels of each value in a (z, y, x) label map, in ascending order."""
    counts: collections.Counter[int] = collections.Counter()
    for plane in labels:
        values, numbers = np.unique(plane, return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def read_labels(
    path: str | os.PathLike,
    grid: Grid,
    domain: Domain,
    *,
    only_classes: bool = False,
    max_memory_gb: float | None = None,
) -> np.ndarray:
    """Reads and checks a label map and converts raw values to class indices.

    An empty label map is not an error here: a class may be absent from a case. A label
    map that is stored in a different orientation from its image is reoriented. Voxels
    without annotation get the domain's `ignore_index`.

    Args:
      path: the file.
      grid: grid of the image that the label map belongs to.
      domain: provides the classes and their values.
      only_classes: whether the label map is a prediction, whose voxels must all have
        the value of a class, whatever the plan says about others.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (z, y, x) uint8 class indices.

    Raises:
      InputError: if the label map cannot be used, for example because no voxel of it is
        annotated.
    """
    labels = images.load_labels(
        path,
        round_labels=domain.preprocessing.round_labels and not only_classes,
        max_memory_gb=max_memory_gb,
    )
    reoriented = reorient_to(labels, grid)
    if only_classes:
        require_known(labels, domain)
    _check_annotated(labels, domain.ignore_label)
    classes = np.zeros(reoriented.shape, np.uint8)
    values: list[tuple[int, ...]] = [label.values for label in domain.labels]
    if domain.ignore_label is not None:
        values.append((domain.ignore_label,))
    # Plane by plane: `isin` needs many times the memory of its argument.
    for target, plane in zip(classes, reoriented, strict=True):
        for index, of_class in enumerate(values):
            target[np.isin(plane, of_class)] = index
    if domain.preprocessing.unknown_labels == "fail":
        _check_known(
            labels,
            [value for of_class in values for value in of_class],
            "A plan with `unknown_labels`=background treats them as background",
        )
    return classes


def raw_labels(classes: np.ndarray, domain: Domain) -> np.ndarray:
    """Converts class indices to the raw values that predictions are written with.

    Returns int32, or int64 if a value requires it.
    """
    values = [label.values[0] for label in domain.labels]
    int32 = np.iinfo(np.int32)
    fits = all(int32.min <= value <= int32.max for value in values)
    table = np.array(values, np.int32 if fits else np.int64)
    return table[classes]
