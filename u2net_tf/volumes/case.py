"""One case, from its files to arrays that are known to be usable.

The checks of survey, convert, evaluate and predict are these and no others.
"""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from u2net_tf.domains import Domain
from u2net_tf.errors import InputError
from u2net_tf.volumes import nifti, preprocess
from u2net_tf.volumes.dicom import is_dicom_folder, load_dicom
from u2net_tf.volumes.nifti import Volume

# Kinds of fault of a label map.
GEOMETRY, UNKNOWN_LABEL, EMPTY_LABEL = "geometry", "unknown label", "empty label"


def image_faults(image: Volume, *, num_modalities: int) -> list[str]:
    """What makes an image unusable, in words; empty if nothing does.

    Args:
      image: (C, z, y, x) as `nifti.load_image` returns it.
      num_modalities: what C should be.
    """
    faults = []
    if image.data.shape[0] != num_modalities:
        faults.append(
            f"expected {num_modalities} modalities, found {image.data.shape[0]}"
        )
    bad = image.data.size - int(np.isfinite(image.data).sum())
    if bad:
        faults.append(f"expected finite voxels, found {bad} that are NaN or infinite")
    elif not image.data[0].any():
        faults.append("expected an image with non-zero voxels, found all zero")
    else:
        for channel, data in enumerate(image.data):
            if data.min() == data.max():
                faults.append(
                    "expected intensities that differ, found the constant "
                    f"{data.flat[0]:g} in modality {channel}"
                )
    return faults


def label_faults(
    labels: Volume, image: Volume | None, *, known: Sequence[int]
) -> dict[str, str]:
    """What is wrong with a label map: kind -> in words; empty if nothing is.

    Args:
      labels: (z, y, x) raw values as `nifti.load_labels` returns them.
      image: the image that they belong to; None if it cannot be read.
      known: the raw values that may occur.
    """
    faults = {UNKNOWN_LABEL: unknown_labels(labels.data, known)}
    if image is not None:
        faults = {GEOMETRY: nifti.grid_difference(image.grid, labels.grid)} | faults
    if not labels.data.any():
        faults[EMPTY_LABEL] = "expected foreground, found an empty label map"
    return {kind: text for kind, text in faults.items() if text}


def unknown_labels(labels: np.ndarray, known: Sequence[int]) -> str:
    """Says which values occur that are not known, and how often; "" if none does."""
    found = ", ".join(
        f"{value} in {count} voxels"
        for value, count in count_values(labels).items()
        if value not in known
    )
    return f"expected labels among {sorted(known)}, found {found}" if found else ""


def count_values(labels: np.ndarray) -> dict[int, int]:
    """How many voxels of a (z, y, x) label map have each value; in their order."""
    counts = collections.Counter()
    for plane in labels:
        values, numbers = np.unique(plane, return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def read_image(paths: Sequence[str | os.PathLike], domain: Domain) -> Volume:
    """Reads and checks an image: NIfTI files, or one DICOM folder per modality.

    Args:
      paths: one 3-D or 4-D file, or one path per modality.
      domain: gives the number of modalities and the source of the spacing.

    Returns:
      (C, z, y, x) float32.

    Raises:
      InputError: names the file, what was expected and what was found.
    """
    if any(is_dicom_folder(path) for path in paths):
        image = load_dicom(paths)
    else:
        source = domain.preprocessing.spacing_source
        image = nifti.load_image(paths, spacing_source=source)
    faults = image_faults(image, num_modalities=domain.num_modalities)
    if faults:
        raise InputError(f"{_names(paths)}: {faults[0]}")
    return image


def read_labels(path: str | os.PathLike, image: Volume, domain: Domain) -> np.ndarray:
    """Reads and checks a label map and turns raw values into class indices.

    An empty label map is not an error here: a class may be absent from a case.

    Returns:
      (z, y, x) uint8 class indices.

    Raises:
      InputError: names the file, what was expected and what was found.
    """
    labels = nifti.load_labels(path)
    if domain.num_classes > 256:
        raise InputError(f"{path}: expected at most 256 classes in {domain.name}")
    known = [value for label in domain.labels for value in label.values]
    problem = nifti.grid_difference(image.grid, labels.grid)
    if problem:
        raise InputError(f"{path}: {problem}")
    classes = np.zeros(labels.data.shape, np.uint8)
    # Plane by plane: `isin` takes many times the memory of what it looks at.
    for target, plane in zip(classes, labels.data, strict=True):
        for index, label in enumerate(domain.labels):
            target[np.isin(plane, label.values)] = index
    unknown = unknown_labels(labels.data, known)
    if unknown and domain.preprocessing.unknown_labels == "fail":
        raise InputError(
            f"{path}: {unknown} (--unknown_labels=background of the plan takes them "
            "as background)"
        )
    return classes


def raw_labels(classes: np.ndarray, domain: Domain) -> np.ndarray:
    """Class indices -> the raw values that predictions are written with. int32."""
    table = np.array([label.values[0] for label in domain.labels], np.int32)
    return table[classes]


def preprocess_case(
    image: Volume, domain: Domain
) -> tuple[np.ndarray, preprocess.Placement]:
    """`preprocess.preprocess_image` with errors that name the file.

    Raises:
      InputError: if the image cannot be preprocessed as the domain wants it, for
        example because it is constant between its percentiles.
    """
    try:
        return preprocess.preprocess_image(image.data, image.spacing_mm, domain)
    except ValueError as error:
        raise InputError(f"{image.grid.path}: {error}") from None


def _names(paths: Sequence[str | os.PathLike]) -> str:
    return ", ".join(str(pathlib.Path(path)) for path in paths)
