"""Volumes of the classes of a label map."""

from __future__ import annotations

import os

import numpy as np

from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import (
    case_labels,
    dicom,
    dicom_segmentation,
    dicom_segments,
    images,
    itk_files,
)
from u2net_tf.volumes.dicom_folder import is_dicom
from u2net_tf.volumes.grid import Grid

_MM3_PER_ML = 1000


def voxel_volume_ml(grid: Grid, spacing_source: str = "pixdim") -> float:
    """Returns the volume of a voxel, ml.

    Args:
      grid: provides the voxel sizes.
      spacing_source: see `Grid.spacing_mm`.
    """
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    # Less than 1 if the axes are not perpendicular, as with a tilted gantry.
    flatness = abs(np.linalg.det(axes))
    return float(np.prod(grid.spacing_mm(spacing_source)) * flatness / _MM3_PER_ML)


def volumes_ml(classes: np.ndarray, grid: Grid, domain: Domain) -> dict[str, float]:
    """Returns the volume of each foreground class by name, ml; 0 for absent classes.

    Args:
      classes: (z, y, x) class indices.
      grid: grid of the labels; provides the voxel size.
      domain: provides the classes and the source of the voxel size.
    """
    return _to_ml(case_labels.count_values(classes), grid, domain)


def read_volumes_ml(
    path: str | os.PathLike,
    scan: str | os.PathLike,
    domain: Domain,
    *,
    max_memory_gb: float | None = None,
) -> dict[str, float]:
    """Returns `volumes_ml` of a file written by `label_map_files.save_label_map`.

    Args:
      path: the file, which may have been edited since.
      scan: the scan's first file, or DICOM folder.
      domain: see `volumes_ml`.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: if the file cannot be read, or contains a value of no known class.
    """
    if str(path).endswith(dicom_segmentation.SUFFIX):
        grid = dicom.load_header(scan, max_memory_gb=max_memory_gb).grid
        counts = dicom_segments.count_voxels(path, domain)
        return _to_ml(counts, grid, domain)
    labels = images.load_labels(path, max_memory_gb=max_memory_gb)
    case_labels.require_known(labels, domain)
    by_value = case_labels.count_values(labels.data)
    counts = {
        number: sum(by_value.get(value, 0) for value in label.values)
        for number, label in enumerate(domain.labels)
    }
    volumes = _to_ml(counts, labels.grid, domain)
    if itk_files.is_itk_file(path) and not (
        itk_files.is_itk_file(scan) or is_dicom(scan)
    ):
        # These formats store the voxel size of the affine only. The label map may have
        # been cropped or resampled since, so its grid is not that of the scan.
        grid = images.load_header(scan, max_memory_gb=max_memory_gb).grid
        source = domain.preprocessing.spacing_source
        factor = voxel_volume_ml(grid, source) / voxel_volume_ml(grid, "affine")
        volumes = {name: factor * volume for name, volume in volumes.items()}
    return volumes


def _to_ml(counts: dict[int, int], grid: Grid, domain: Domain) -> dict[str, float]:
    voxel_ml = voxel_volume_ml(grid, domain.preprocessing.spacing_source)
    return {
        label.name: counts.get(number, 0) * voxel_ml
        for number, label in enumerate(domain.labels)
        if number
    }
