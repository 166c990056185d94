"""Images that are NumPy arrays instead of files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from u2net_tf.errors import InputError
from u2net_tf.volumes.float32 import to_float32
from u2net_tf.volumes.grid import Volume, log_notes
from u2net_tf.volumes.itk_geometry import to_grid
from u2net_tf.volumes.nifti_header import is_invertible

# Name of the array argument in messages.
SOURCE = "`image`"


def image_from_array(
    array: np.ndarray,
    *,
    spacing_mm: Sequence[float] | None = None,
    orientation: str | None = None,
    affine: npt.ArrayLike | None = None,
) -> Volume:
    """Returns an array as an image; it is copied.

    Its position in space is given by `spacing_mm` and `orientation` together, or by
    `affine` alone.

    Args:
      array: (z, y, x), or (z, y, x, C) with C modalities. Real numbers.
      spacing_mm: voxel size (z, y, x), in mm.
      orientation: the directions in which the axes x, y and z increase, in this order,
        as three of the letters L, R, A, P, S, I: "LPS" is the usual order of DICOM,
        "RAS" that of NIfTI.
      affine: (4, 4) voxel indices (x, y, z) -> mm, RAS+, as nibabel returns it.

    Returns:
      An image with data of shape (C, z, y, x), float32, in canonical orientation.

    Raises:
      InputError: names the argument.
    """
    values = _check_values(array)
    grid = to_grid(
        values.shape[:3], _find_affine(spacing_mm, orientation, affine), SOURCE
    )
    shape = grid.canonical_view(values[..., 0].T).shape
    data = np.empty((values.shape[3], *shape), np.float32)
    notes: list[str] = []
    for target, channel in zip(data, np.moveaxis(values, 3, 0), strict=True):
        rounded, found = to_float32(channel, 1, 0, path=SOURCE)
        target[...] = grid.canonical_view(rounded.T)
        notes += [note for note in found if note not in notes]
    logged = log_notes(SOURCE, notes)
    return Volume(data, grid.spacing_mm("affine"), grid, logged)


def _check_values(array: np.ndarray) -> np.ndarray:
    """Returns the array with an axis of modalities."""
    if array.dtype.kind not in "iuf":
        raise InputError(
            SOURCE, expected="an array of real numbers", received=array.dtype
        )
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(
            SOURCE,
            expected="an array without a mask",
            received="a masked array",
            hint="Use its method `filled`",
        )
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(
            SOURCE,
            expected="an array of shape (z, y, x) or (z, y, x, modalities)",
            received=f"shape {array.shape}",
        )
    return array if array.ndim == 4 else array[..., np.newaxis]


def _find_affine(
    spacing_mm: Sequence[float] | None,
    orientation: str | None,
    affine: npt.ArrayLike | None,
) -> np.ndarray:
    if affine is not None:
        for name, value in (("spacing_mm", spacing_mm), ("orientation", orientation)):
            if value is not None:
                raise InputError(
                    f"`{name}`", expected="none with `affine`", received=value
                )
        return _check_affine(affine)
    if spacing_mm is None or orientation is None:
        missing = "spacing_mm" if spacing_mm is None else "orientation"
        raise InputError(
            f"`{missing}`",
            expected="a value, as `image` is an array",
            received="none",
            hint="Give `spacing_mm` and `orientation`, or `affine`",
        )
    found = np.eye(4)
    found[:3, :3] = _directions(orientation) * _check_spacing(spacing_mm)[::-1]
    if not is_invertible(found):
        raise InputError(
            "`spacing_mm`", expected="voxel sizes from 1e-9 to 1e9", received=spacing_mm
        )
    return found


def _check_affine(affine: npt.ArrayLike) -> np.ndarray:
    matrix = _to_array(affine)
    if (
        matrix.dtype.kind not in "iuf"
        or matrix.shape != (4, 4)
        or not np.array_equal(matrix[3], (0, 0, 0, 1))
        or not is_invertible(matrix.astype(float))
    ):
        raise InputError(
            "`affine`",
            expected="an invertible (4, 4) matrix whose last row is 0, 0, 0, 1",
            received=affine,
        )
    return matrix.astype(float)


def _check_spacing(spacing_mm: Sequence[float]) -> np.ndarray:
    sizes = _to_array(spacing_mm)
    if (
        sizes.dtype.kind not in "iuf"
        or sizes.shape != (3,)
        or not (np.isfinite(sizes).all() and (sizes > 0).all())
    ):
        raise InputError(
            "`spacing_mm`",
            expected="three positive numbers, for z, y and x",
            received=spacing_mm,
        )
    return sizes.astype(float)


def _to_array(values: npt.ArrayLike) -> np.ndarray:
    """Returns an array of any type and shape, empty for rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.empty(0)


# Letter -> the unit vector (RAS+) of an axis that increases in its direction.
_DIRECTIONS = {
    letter: sign * np.eye(3)[axis]
    for axis, letters in enumerate(("RL", "AP", "SI"))
    for letter, sign in zip(letters, (1, -1), strict=True)
}


def _directions(orientation: str) -> np.ndarray:
    """Returns a (3, 3) matrix whose columns are the directions of x, y and z."""
    columns = [_DIRECTIONS.get(letter) for letter in str(orientation).upper()]
    known = [column for column in columns if column is not None]
    matrix = np.array(known).T
    if len(columns) != 3 or len(known) != 3 or np.linalg.det(matrix) == 0:
        raise InputError(
            "`orientation`",
            expected="three letters, one each of L and R, A and P, S and I, such as "
            "LPS or RAS",
            received=orientation,
        )
    return matrix
