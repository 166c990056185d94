"""Where the planes of a DICOM series lie, as one grid."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from nibabel import affines

from u2net_tf.errors import InputError
from u2net_tf.volumes.itk_geometry import LPS_TO_RAS

if TYPE_CHECKING:
    from u2net_tf.volumes.dicom_planes import Plane

# How far a slice may lie from where the volume's grid has it.
_GRID_TOLERANCE_VOXELS = 0.1
# How much a distance of slices may differ from the usual one, as a fraction.
_STEP_TOLERANCE = 0.05
# Gantries tilt by up to 30 degrees or a little more. Below the least, it is rounding.
_MAX_TILT_DEGREES = 45
_MIN_TILT_DEGREES = 0.01


def stacked_affine(
    folder: str | os.PathLike, planes: list[Plane], direction: np.ndarray
) -> np.ndarray:
    """(4, 4) indices (column, row, plane) -> mm, RAS.

    The axes are perpendicular; of a series with a tilted gantry, whose planes are
    shifted evenly along themselves, the third is not.

    Args:
      folder: of the series, for errors.
      planes: in the order of their places.
      direction: (3, 3) unit vectors along a row, a column and across.

    Raises:
      InputError: if the planes are not evenly spaced, or one is not where the grid has
        it.
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
    """The first plane that is not where an affine (LPS) has it, and how far, in mm."""
    largest = _GRID_TOLERANCE_VOXELS * affines.voxel_sizes(affine).min()
    for index, plane in enumerate(planes):
        place = affine[:3, 3] + index * affine[:3, 2]
        offset = float(np.linalg.norm(plane.position_mm - place))
        if offset > largest:
            return plane, offset
    return None, 0.0


def _tilt_degrees(affine: np.ndarray) -> float:
    """Angle between the direction of stacking and the normal of the planes."""
    across = np.cross(affine[:3, 0], affine[:3, 1])
    step = affine[:3, 2]
    cosine = abs(across @ step) / (np.linalg.norm(across) * np.linalg.norm(step))
    return float(np.degrees(np.arccos(min(cosine, 1.0))))


def tilt_notes(affine: np.ndarray) -> list[str]:
    """A note if planes are shifted along themselves."""
    tilt = _tilt_degrees(affine)
    if tilt <= _MIN_TILT_DEGREES:
        return []
    return [
        f"gantry tilted by {tilt:.3g} degrees; the slices are taken as if they were "
        "stacked perpendicular to their plane"
    ]


def _step_mm(folder: str | os.PathLike, planes: list[Plane]) -> float:
    """Distance of neighbouring planes."""
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
    usual = np.median(steps)
    odd = int(np.abs(steps - usual).argmax())
    if steps.min() == 0 or abs(steps[odd] - usual) > _STEP_TOLERANCE * usual:
        if steps.min() == 0:
            odd = int(steps.argmin())
        pair = [plane.header.path.name for plane in planes[odd : odd + 2]]
        raise InputError(
            folder,
            expected="evenly spaced slices",
            received=f"distances from {steps.min():.3g} to {steps.max():.3g} mm, "
            f"{steps[odd]:.3g} from {pair[0]} to {pair[1]}",
            hint="A slice may be missing, or the folder may hold several series",
        )
    return float(np.linalg.norm(positions[-1] - positions[0])) / (len(planes) - 1)
