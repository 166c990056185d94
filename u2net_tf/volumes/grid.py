"""The voxel grid of a file, and a volume on it.

Only this module deals with the (x, y, z) order on disk. Arrays are reoriented to
the closest canonical orientation (RAS+) by flips and swaps of axes, never by
interpolation, and transposed to (z, y, x). `Grid` keeps what is needed to invert this,
so that output files have the shape, affine and header codes of the file that was read.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

import nibabel as nib
import numpy as np
from absl import logging
from nibabel import affines

from u2net_tf.errors import InputError
from u2net_tf.plan.preprocessing import SPACING_SOURCES
from u2net_tf.volumes import nifti_header

Spacing = tuple[float, float, float]

# Voxel sizes from pixdim and from the affine count as equal up to this fraction.
_SPACING_TOLERANCE = 0.01
# Two grids count as equal if no corner differs by more than this fraction of a voxel.
_GRID_TOLERANCE_VOXELS = 0.1


@dataclasses.dataclass(frozen=True)
class Grid:
    """The voxel grid of a file, as stored.

    Attributes:
      path: the file.
      shape: spatial shape (x, y, z) on disk.
      affine: (4, 4) voxel indices on disk -> mm, RAS+.
      header: the file's header.
      image_class: nibabel's class of the file (NIfTI-1 or NIfTI-2).
    """

    path: str
    shape: tuple[int, int, int]
    affine: np.ndarray
    header: nib.nifti1.Nifti1Header
    image_class: type[nib.nifti1.Nifti1Image]

    @property
    def orientation(self) -> np.ndarray:
        """(3, 2) nibabel orientation that converts disk order to canonical."""
        return nib.orientations.io_orientation(self.affine)

    @property
    def length_unit(self) -> str:
        """Unit of the file's voxel sizes; "" if none is stated, which means mm."""
        return nifti_header.length_unit(self.header)

    @property
    def axis_codes(self) -> str:
        """Orientation on disk, for example "RAS" or "LPS"."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def pixdim_mm(self) -> np.ndarray:
        """(3,) voxel size (x, y, z) on disk according to the header's pixdim."""
        sizes = np.asarray(self.header.get_zooms()[:3], dtype=float)
        return sizes * nifti_header.mm_per_unit(self.header)

    def spacing_mm(self, source: str = "pixdim") -> Spacing:
        """Returns the voxel size (z, y, x) of the canonical orientation.

        Args:
          source: header field to read it from, "pixdim" or "affine".
        """
        if source not in SPACING_SOURCES:
            raise ValueError(
                f"spacing_source: expected one of {SPACING_SOURCES}. Received: "
                f"{source!r}"
            )
        sizes = self.pixdim_mm
        if source == "affine":
            sizes = affines.voxel_sizes(self.affine)
        canonical = np.empty(3)
        canonical[self.orientation[:, 0].astype(int)] = sizes
        x, y, z = (float(size) for size in canonical)
        return z, y, x

    def canonical_view(self, array: np.ndarray) -> np.ndarray:
        """Converts disk order (x, y, z) to canonical (z, y, x), without a copy."""
        return nib.orientations.apply_orientation(array, self.orientation).T

    def from_canonical(self, array: np.ndarray) -> np.ndarray:
        """Converts canonical (z, y, x) to disk order; inverse of `canonical_view`."""
        canonical = nib.orientations.axcodes2ornt("RAS")
        back = nib.orientations.ornt_transform(canonical, self.orientation)
        return nib.orientations.apply_orientation(array.T, back)


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume in memory.

    Attributes:
      data: (C, z, y, x) float32 for an image, (z, y, x) integer for a label map.
      spacing_mm: voxel size (z, y, x), mm.
      grid: the grid of the file that was read, or of the first of several.
      notes: anomalies of the files and how they were resolved, each with the file.
    """

    data: np.ndarray
    spacing_mm: Spacing
    grid: Grid
    notes: tuple[str, ...] = ()


def log_notes(path: str | os.PathLike, notes: Iterable[str]) -> tuple[str, ...]:
    """Logs notes on a file as warnings; returns them with the path of the file."""
    with_path = tuple(f"{path}: {note}" for note in notes)
    for note in with_path:
        logging.warning("%s", note)
    return with_path


def header_problem(grid: Grid) -> str:
    """Describes how pixdim and affine disagree on the voxel size; "" if they agree."""
    sizes = affines.voxel_sizes(grid.affine)
    if np.allclose(grid.pixdim_mm, sizes, rtol=_SPACING_TOLERANCE):
        return ""
    pixdim, affine = (
        " × ".join(f"{size:.3g}" for size in values)
        for values in (grid.pixdim_mm, sizes)
    )
    return f"voxel size is {pixdim} mm in pixdim and {affine} mm in the affine"


def check_same_grid(expected: Grid, received: Grid) -> None:
    """Checks that two grids cover the same space, up to a tenth of a voxel.

    Their axes may be stored in a different order or direction: see `reorient_to`.

    Raises:
      InputError: if they do not; names the file of `received` and the difference.
    """
    _relative_orientation(expected, received)


def reorient_to(labels: Volume, grid: Grid) -> np.ndarray:
    """Returns a label map in the canonical orientation of its image.

    Args:
      labels: (z, y, x), on the same grid in space.
      grid: grid of the image.

    Returns:
      (z, y, x), a view.

    Raises:
      InputError: see `check_same_grid`.
    """
    orientation = _relative_orientation(grid, labels.grid)
    on_disk = labels.grid.from_canonical(labels.data)
    return grid.canonical_view(nib.orientations.apply_orientation(on_disk, orientation))


def _relative_orientation(expected: Grid, received: Grid) -> np.ndarray:
    """Returns the nibabel orientation, (3, 2), from `received` to `expected`.

    Raises:
      InputError: if they are not the same grid in space.
    """
    indices = np.linalg.solve(expected.affine, received.affine)
    orientation = nib.orientations.io_orientation(indices)
    if not np.isfinite(orientation).all():
        orientation = nib.orientations.axcodes2ornt("RAS")
    order = np.argsort(orientation[:, 0])
    shape = tuple(received.shape[axis] for axis in order)
    if expected.shape != shape:
        raise InputError(
            received.path,
            expected=f"shape {expected.shape} as in {expected.path}",
            received=received.shape,
        )
    to_received = nib.orientations.inv_ornt_aff(orientation, received.shape)
    affine = received.affine @ to_received
    corners = np.array(
        [[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float
    )
    corners[:, :3] *= np.array(expected.shape) - 1
    distance = np.abs(corners @ (expected.affine - affine).T).max()
    voxel = affines.voxel_sizes(expected.affine).min()
    # Not `distance > …`: it may be NaN.
    if not distance <= _GRID_TOLERANCE_VOXELS * voxel:
        raise InputError(
            received.path,
            expected=f"the affine of {expected.path}, orientation "
            f"{expected.axis_codes}",
            received=f"orientation {received.axis_codes}, a corner "
            f"{distance:.3g} mm away",
        )
    return orientation
