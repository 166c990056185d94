"""Reading of a case, with the checks that make its arrays safe to use.

Survey, convert, evaluate and predict all use these checks and no others.
"""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import dicom, images, modalities, nifti
from u2net_tf.volumes.dicom_folder import is_dicom
from u2net_tf.volumes.grid import Grid, Volume, check_same_grid, reorient_to
from u2net_tf.wording import first_few, quantity

# Kinds of label map faults.
GEOMETRY, UNKNOWN_LABEL, EMPTY_LABEL = "geometry", "unknown label", "empty label"


def image_faults(image: Volume, *, num_modalities: int) -> list[str]:
    """Describes everything that makes an image unusable; empty if it is usable.

    Args:
      image: (C, z, y, x) as returned by `images.load_image`.
      num_modalities: expected C.
    """
    errors = _image_errors(image.grid.path, image, num_modalities)
    return [error.problem for error in errors]


def check_image(where: str, image: Volume, num_modalities: int) -> None:
    """Checks that an image is usable.

    Args:
      where: its file or argument, for the message.
      image: (C, z, y, x).
      num_modalities: the expected C.

    Raises:
      InputError: if it has the wrong number of modalities, voxels of NaN or infinity,
        or a modality without contrast.
    """
    for error in _image_errors(where, image, num_modalities):
        raise error


def _image_errors(
    where: str, image: Volume, num_modalities: int
) -> Iterator[InputError]:
    if image.data.shape[0] != num_modalities:
        yield _wrong_number(where, image.data.shape[0], num_modalities)
    bad = image.data.size - int(np.isfinite(image.data).sum())
    if bad:
        yield InputError(
            where,
            expected="finite voxels",
            received=f"{quantity(bad, 'NaN or infinite voxel')}",
        )
    elif not image.data[0].any():
        yield InputError(
            where, expected="an image with non-zero voxels", received="zeros only"
        )
    else:
        for channel, data in enumerate(image.data):
            if data.min() == data.max():
                yield InputError(
                    where,
                    expected="intensities that differ",
                    received=f"the constant {data.flat[0]:g} in modality {channel}",
                )


def _wrong_number(where: str, received: int, num_modalities: int) -> InputError:
    return InputError(
        where,
        expected=quantity(num_modalities, "modality", "modalities"),
        received=received,
    )


def label_faults(
    labels: Volume, image: Volume | None, *, known: Sequence[int]
) -> dict[str, str]:
    """Describes the faults of a label map by their kind; empty if there are none.

    Args:
      labels: (z, y, x) raw values as returned by `images.load_labels`.
      image: the image that the label map belongs to; None if it cannot be read.
      known: allowed raw values.
    """
    checks = {
        UNKNOWN_LABEL: lambda: _check_known(labels, known),
        EMPTY_LABEL: lambda: _check_foreground(labels),
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
      InputError: names the file and the unknown values.
    """
    values = [value for label in domain.labels for value in label.values]
    _check_known(labels, [0, *values])


def _check_foreground(labels: Volume) -> None:
    if not labels.data.any():
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


def read_image(
    paths: Sequence[str | os.PathLike],
    domain: Domain,
    *,
    resample_modalities: bool = False,
    max_memory_gb: float | None = None,
) -> Volume:
    """Reads and checks an image: files, or one DICOM folder per modality.

    Args:
      paths: one 3-D or 4-D file, or one path per modality; a DICOM series is a folder
        or a multi-frame file.
      domain: provides the number of modalities and the source of the spacing.
      resample_modalities: whether to resample modalities to the grid of the first, even
        if the domain does not; otherwise a different grid is an error.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (C, z, y, x) float32.

    Raises:
      InputError: names the file, what was expected and what was received.
    """
    image = _read_volume(paths[0], domain, max_memory_gb)
    if len(paths) > 1:
        modalities.require_memory_for_all(
            paths, image.data.shape[1:], max_memory_gb=max_memory_gb
        )
        others = [_read_volume(path, domain, max_memory_gb) for path in paths[1:]]
        resample = resample_modalities or domain.preprocessing.resample_modalities
        image = modalities.stack([image, *others], resample=resample)
        del others
    check_image(_joined_paths(paths), image, domain.num_modalities)
    return image


def _read_volume(
    path: str | os.PathLike, domain: Domain, max_memory_gb: float | None
) -> Volume:
    if is_dicom(path):
        return dicom.load_dicom([path], max_memory_gb=max_memory_gb)
    source = domain.preprocessing.spacing_source
    return images.load_image([path], spacing_source=source, max_memory_gb=max_memory_gb)


def check_headers(
    paths: Sequence[str | os.PathLike],
    domain: Domain,
    *,
    resample_modalities: bool = False,
    max_memory_gb: float | None = None,
) -> Grid:
    """Checks the headers of an image, without reading voxels.

    Args:
      paths: see `read_image`.
      domain: see `read_image`.
      resample_modalities: see `read_image`.
      max_memory_gb: see `read_image`.

    Returns:
      The grid of the image, on which its label map is written.

    Raises:
      InputError: if the headers show that `read_image` would fail.
    """
    headers = [_load_header(path, max_memory_gb) for path in paths]
    received = len(paths)
    if received > 1:
        for header in headers:
            modalities.require_3d(header.grid.path, header.shape[3:])
    else:
        received = (*headers[0].shape, 1)[3]
    if received != domain.num_modalities:
        raise _wrong_number(_joined_paths(paths), received, domain.num_modalities)
    resample = resample_modalities or domain.preprocessing.resample_modalities
    if not resample:
        modalities.check_grids([header.grid for header in headers])
    return headers[0].grid


def _load_header(path: str | os.PathLike, max_memory_gb: float | None) -> nifti.Header:
    if is_dicom(path):
        return dicom.load_header(path, max_memory_gb=max_memory_gb)
    return images.load_header(path, max_memory_gb=max_memory_gb)


def read_labels(
    path: str | os.PathLike,
    image: Volume,
    domain: Domain,
    *,
    max_memory_gb: float | None = None,
) -> np.ndarray:
    """Reads and checks a label map and converts raw values to class indices.

    An empty label map is not an error here: a class may be absent from a case. A label
    map that is stored in a different orientation from its image is reoriented.

    Args:
      path: the file.
      image: the image that the label map belongs to.
      domain: provides the classes and their values.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (z, y, x) uint8 class indices.

    Raises:
      InputError: names the file, what was expected and what was received.
    """
    labels = images.load_labels(
        path,
        round_labels=domain.preprocessing.round_labels,
        max_memory_gb=max_memory_gb,
    )
    reoriented = reorient_to(labels, image.grid)
    classes = np.zeros(reoriented.shape, np.uint8)
    # Plane by plane: `isin` needs many times the memory of its argument.
    for target, plane in zip(classes, reoriented, strict=True):
        for index, label in enumerate(domain.labels):
            target[np.isin(plane, label.values)] = index
    if domain.preprocessing.unknown_labels == "fail":
        _check_known(
            labels,
            [value for label in domain.labels for value in label.values],
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


def _joined_paths(paths: Sequence[str | os.PathLike]) -> str:
    return ", ".join(str(pathlib.Path(path)) for path in paths)
