"""Images and label maps in any format, selected by the suffix of the file name."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.plan.labels import Label
from u2net_tf.volumes import itk_files, modalities, nifti
from u2net_tf.volumes.grid import Grid, Volume

_2D_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


def load_header(
    path: str | os.PathLike, max_memory_gb: float | None = None
) -> nifti.Header:
    """Reads a header without voxels: see `nifti.load_header`."""
    _reject_2d_format(path)
    load = itk_files.load_header if itk_files.is_itk_file(path) else nifti.load_header
    return load(path, max_memory_gb=max_memory_gb)


def load_image(
    paths: Sequence[str | os.PathLike],
    *,
    spacing_source: str = "pixdim",
    resample_modalities: bool = False,
    max_memory_gb: float | None = None,
) -> Volume:
    """Reads an image from NIfTI, NRRD or MHA files.

    Args:
      paths: one file, or one 3-D file per modality in the order of the modalities.
      spacing_source: see `nifti.load_image`.
      resample_modalities: whether to resample modalities to the grid of the first;
        otherwise a different grid is an error.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (C, z, y, x) float32.

    Raises:
      InputError: if a file cannot be used, or the files are on different grids.
    """
    for path in paths:
        _reject_2d_format(path)
    if len(paths) > 1:
        modalities.require_memory_for_all(
            paths, load_header(paths[0]).shape[:3], max_memory_gb=max_memory_gb
        )
    volumes = [
        itk_files.load_image(path, max_memory_gb=max_memory_gb)
        if itk_files.is_itk_file(path)
        else nifti.load_image(
            path, spacing_source=spacing_source, max_memory_gb=max_memory_gb
        )
        for path in paths
    ]
    if len(volumes) == 1:
        return volumes[0]
    return modalities.stack(volumes, resample=resample_modalities)


def load_labels(
    path: str | os.PathLike,
    *,
    round_labels: bool = False,
    max_memory_gb: float | None = None,
) -> Volume:
    """Reads a label map: see `nifti.load_labels`."""
    _reject_2d_format(path)
    load = itk_files.load_labels if itk_files.is_itk_file(path) else nifti.load_labels
    return load(path, round_labels=round_labels, max_memory_gb=max_memory_gb)


def save_labels(
    path: str | os.PathLike,
    labels: np.ndarray,
    grid: Grid,
    *,
    classes: Sequence[Label] = (),
) -> None:
    """Writes a label map in the format of the file name: see `nifti.save_labels`.

    NRRD and MetaImage files cannot store the names of the classes.
    """
    if itk_files.is_itk_file(path):
        dtype = nifti.smallest_dtype(labels)
        itk_files.save(path, grid.from_canonical(labels.astype(dtype)), grid)
    else:
        nifti.save_labels(path, labels, grid, classes=classes)


def save_probabilities(
    path: str | os.PathLike, probabilities: np.ndarray, grid: Grid
) -> None:
    """Writes probabilities, one component per class: see `nifti.save_probabilities`."""
    if itk_files.is_itk_file(path):
        itk_files.save(path, nifti.stack_probabilities(probabilities, grid), grid)
    else:
        nifti.save_probabilities(path, probabilities, grid)


def _reject_2d_format(path: str | os.PathLike) -> None:
    if pathlib.PurePath(path).suffix.lower() in _2D_SUFFIXES:
        raise InputError(
            path,
            expected="a volume (.nii.gz, .nii, .nrrd, .mha)",
            received="a 2-D image format",
            hint="2-D image formats do not store spacing and orientation in mm",
        )
