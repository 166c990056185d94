"""DICOM in, through SimpleITK: a folder of slices becomes a volume."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.volumes import nifti
from u2net_tf.volumes.grid import Volume, check_same_grid

# ITK's world is LPS (x to the left, y to the back); NIfTI's is RAS.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# How far a slice may lie from where the volume's grid has it.
_GRID_TOLERANCE_VOXELS = 0.1


def is_dicom_folder(path: str | os.PathLike) -> bool:
    """Whether this is a folder that holds a DICOM series."""
    path = pathlib.Path(path)
    return path.is_dir() and bool(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path)))


def load_dicom(folders: Sequence[str | os.PathLike]) -> Volume:
    """Reads one DICOM series per modality.

    Args:
      folders: one folder per modality, one series in each.

    Returns:
      (C, z, y, x) float32. Its grid is that of a NIfTI file of the same geometry.

    Raises:
      InputError: if a folder holds no series or several, slices are missing, or the
        series lie on different grids.
    """
    volumes = [nifti.image_from_nibabel(_read(f), f) for f in folders]
    for volume in volumes[1:]:
        check_same_grid(volumes[0].grid, volume.grid)
    data = np.concatenate([volume.data for volume in volumes])
    return Volume(data, volumes[0].spacing_mm, volumes[0].grid)


def _read(folder: str | os.PathLike) -> nib.nifti1.Nifti1Image:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise InputError(
            folder,
            expected="a folder with one DICOM series",
            received=f"{len(series)} series",
        )
    reader = sitk.ImageSeriesReader()
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    reader.SetFileNames(names)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            folder, expected="a readable DICOM series", received=error
        ) from error
    _check_slices(folder, names, image)
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = direction * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image).T.astype(np.float32)
    result = nib.Nifti1Image(array, _LPS_TO_RAS @ affine)
    result.header.set_xyzt_units("mm")
    return result


def _check_slices(
    folder: str | os.PathLike, names: Sequence[str], image: sitk.Image
) -> None:
    """Evenly spaced slices, each where ITK's orthogonal grid has it.

    Otherwise a volume would be silently compressed or, of a tilted gantry, sheared.
    """
    origins = []
    reader = sitk.ImageFileReader()
    for name in names:
        reader.SetFileName(name)
        reader.ReadImageInformation()
        origins.append(reader.GetOrigin())
    if len(origins) < 2:
        return
    positions = np.array(origins)
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    uneven = steps.max() > 1.05 * np.median(steps) or steps.min() < 0.95 * np.median(
        steps
    )
    if uneven or steps.min() == 0:
        raise InputError(
            folder,
            expected="evenly spaced slices",
            received=f"distances from {steps.min():.3g} to {steps.max():.3g} mm",
            hint="A slice may be missing, or the folder may hold several series",
        )
    grid = np.array(
        [image.TransformIndexToPhysicalPoint((0, 0, k)) for k in range(len(positions))]
    )
    offset = np.linalg.norm(positions - grid, axis=1).max()
    if offset > _GRID_TOLERANCE_VOXELS * min(image.GetSpacing()):
        raise InputError(
            folder,
            expected="slices stacked perpendicular to their plane",
            received=f"a slice {offset:.3g} mm off (tilted gantry)",
            hint="Resample the series first",
        )
