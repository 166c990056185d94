"""Reading of an image, with the checks that make its voxels safe to use.

Survey, convert, evaluate and predict all use these checks and no others.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import dicom, images, modalities, nifti
from u2net_tf.volumes.dicom_folder import is_dicom
from u2net_tf.volumes.grid import Grid, Volume
from u2net_tf.wording import quantity


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
      InputError: if a file cannot be used.
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


def _joined_paths(paths: Sequence[str | os.PathLike]) -> str:
    return ", ".join(str(pathlib.Path(path)) for path in paths)
