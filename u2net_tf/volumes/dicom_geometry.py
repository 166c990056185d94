"""The grid formed by the planes of a DICOM series."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from nibabel import affines

from u2net_tf.errors import InputError
from u2net_tf.volumes.itk_geometry import LPS_TO_RAS

if TYPE_CHECKING:
    from u2net_tf.volumes.dicom_planes import Plane

# Largest distance of a slice from its position on the grid.
_GRID_TOLERANCE_VOXELS = 0.1
# Largest deviation of a distance between slices from the median, as a fraction.
_STEP_TOLERANCE = 0.05
# Gantries tilt by 30 degrees or slightly more. Below the minimum, it is rounding.
_MAX_TILT_DEGREES = 45
_MIN_TILT_DEGREES = 0.01


def stacked_affine(
    folder: str | os.PathLike, planes: list[Plane], direction: np.ndarray
) -> np.ndarray:
    """Returns the (4, 4) affine from indices (column, row, plane) to mm, RAS.

    The axes are perpendicular, except for the third one of a series with a tilted
    gantry, whose planes are evenly shifted within their own plane.

    Args:
      folder: folder of the series, for errors.
      planes: the planes, in order of position.
      direction: (3, 3) unit vectors along a row, a column and the normal.

    Raises:
      InputError: if the planes are not evenly spaced, or one is not on the grid.
    """
    affine = np.eye(4)
    affine[:3, :3] = direction * (
        *np.median([plane.spacing_mm for plane in planes], axis=0)[::-1],
        _step_mm(folder, planes),
    )
    affine[:3, 3] = planes[0].position_mm
    plane, offset_mm = _misplaced(planes, affine)
    if plane is None:
        return LPS_TO_RAS @ affine
    positions = planes[0].position_mm, planes[-1].position_mm
    affine[:3, 2] = (positions[1] - positions[0]) / (len(planes) - 1)
    if _tilt_degrees(affine) > _MAX_TILT_DEGREES or _misplaced(planes, affine)[0]:
        raise plane.header.error(
            "ImagePositionPatient",
            "slices stacked perpendicular to their plane, or shifted evenly by a "
            f"gantry tilted by up to {_MAX_TILT_DEGREES} degrees",
            f"a slice {offset_mm:.3g} mm off",
            hint="Resample the series first",
        )
    return LPS_TO_RAS @ affine


def _misplaced(
    planes: list[Plane], affine: np.ndarray
) -> tuple[Plane, float] | tuple[None, float]:
    """Returns the first plane off its position in an affine (LPS), and its offset."""
    tolerance_mm = _GRID_TOLERANCE_VOXELS * affines.voxel_sizes(affine).min()
    for index, plane in enumerate(planes):
        expected_mm = affine[:3, 3] + index * affine[:3, 2]
        offset_mm = float(np.linalg.norm(plane.position_mm - expected_mm))
        if offset_mm > tolerance_mm:
            return plane, offset_mm
    return None, 0.0


def _tilt_degrees(affine: np.ndarray) -> float:
    """Returns the angle between stacking direction and plane normal, degrees."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    step = affine[:3, 2]
    cosine = abs(normal @ step) / (np.linalg.norm(normal) * np.linalg.norm(step))
    return float(np.degrees(np.arccos(min(cosine, 1.0))))


def tilt_notes(affine: np.ndarray) -> list[str]:
    """Returns a note if the gantry is tilted."""
    tilt = _tilt_degrees(affine)
    if tilt <= _MIN_TILT_DEGREES:
        return []
    return [
        f"gantry tilted by {tilt:.3g} degrees; the slices are treated as if stacked "
        "perpendicular to their plane"
    ]


def _step_mm(folder: str | os.PathLike, planes: list[Plane]) -> float:
    """Returns the distance between neighbouring planes."""
    first = planes[0]
    if len(planes) == 1:
        thickness = first.thickness_mm if first.step_mm is None else first.step_mm
        if thickness is None or thickness <= 0:
            raise first.header.error(
                "SliceThickness", "a length above 0 mm", thickness or "no value"
            )
        return thickness
    positions = np.array([plane.position_mm for plane in planes])
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    median = np.median(steps)
    worst = int(np.abs(steps - median).argmax())
    if steps.min() == 0 or abs(steps[worst] - median) > _STEP_TOLERANCE * median:
        if steps.min() == 0:
            worst = int(steps.argmin())
        pair = [plane.header.path.name for plane in planes[worst : worst + 2]]
        raise InputError(
            folder,
            expected="evenly spaced slices",
            received=f"distances from {steps.min():.3g} to {steps.max():.3g} mm, "
            f"{steps[worst]:.3g} from {pair[0]} to {pair[1]}",
            hint="A slice may be missing, or the folder may contain several series",
        )
    return float(np.linalg.norm(positions[-1] - positions[0])) / (len(planes) - 1)
