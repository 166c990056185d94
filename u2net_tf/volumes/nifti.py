"""Reading and writing of NIfTI files."""

from __future__ import annotations

import dataclasses
import gzip
import os
import pathlib
from collections.abc import Sequence

import nibabel as nib
import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.plan.labels import Label
from u2net_tf.volumes import label_values, nifti_file, nifti_header, nifti_labels
from u2net_tf.volumes.float32 import to_float32
from u2net_tf.volumes.grid import Grid, Volume, header_problem, log_notes
from u2net_tf.volumes.nifti_file import NiftiFile


@dataclasses.dataclass(frozen=True)
class Header:
    """Shape and grid from the header of a file.

    Attributes:
      shape: on disk (x, y, z), or (x, y, z, modality); singleton axes after the third
        are removed.
      grid: voxel sizes, orientation and position.
    """

    shape: tuple[int, ...]
    grid: Grid


def load_header(path: str | os.PathLike, max_memory_gb: float | None = None) -> Header:
    """Reads the header of an image or a label map, without voxels.

    Args:
      path: the file.
      max_memory_gb: see `memory.require_memory`.

    Raises:
      InputError: if the file cannot be read, is not 3-D or 4-D, is too short for its
        voxels, or does not fit into memory.
    """
    with nifti_file.open_nifti(path, max_memory_gb=max_memory_gb) as file:
        return Header(file.shape, _grid(file))


def load_image(
    path: str | os.PathLike,
    *,
    spacing_source: str = "pixdim",
    max_memory_gb: float | None = None,
) -> Volume:
    """Reads an image, 3-D or 4-D.

    Anomalies of the file and how they were resolved are recorded in `Volume.notes` and
    logged as warnings.

    Args:
      path: the file.
      spacing_source: source of the voxel size if the header contradicts itself,
        "pixdim" or "affine". Such a file gets a note.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (C, z, y, x) float32. Voxel sizes are in mm, regardless of the file's unit.

    Raises:
      InputError: if the file cannot be read, is damaged, is not 3-D or 4-D, or does not
        fit into memory.
    """
    array, grid, notes = _read_as_float32(path, max_memory_gb)
    channels = [array]
    if array.ndim == 4:
        channels = [array[..., c] for c in range(array.shape[-1])]
    return _make_volume(channels, grid, notes, spacing_source)


def _make_volume(
    channels: list[np.ndarray], grid: Grid, notes: list[str], spacing_source: str
) -> Volume:
    """Returns the (x, y, z) channels of one file as a volume."""
    views = [grid.canonical_view(channel) for channel in channels]
    # A single copy, since a volume may take a large part of the memory.
    data = np.empty((len(views), *views[0].shape), np.float32)
    for channel, view in zip(data, views, strict=True):
        channel[...] = view
    if problem := header_problem(grid):
        notes = [*notes, f"{problem}; using {spacing_source}"]
    return Volume(
        data, grid.spacing_mm(spacing_source), grid, log_notes(grid.path, notes)
    )


def load_labels(
    path: str | os.PathLike,
    *,
    round_labels: bool = False,
    max_memory_gb: float | None = None,
) -> Volume:
    """Reads a label map. Integers stay integers, however large.

    Args:
      path: the file.
      round_labels: whether to round values that are close to integers, as produced by a
        scale factor.
      max_memory_gb: see `memory.require_memory`.

    Returns:
      (z, y, x) int32, or int64 if its values require it. Its spacing is from pixdim.

    Raises:
      InputError: if the file cannot be read, is damaged, is not 3-D, does not fit into
        memory, or contains values that are not integers.
    """
    with nifti_file.open_nifti(path, max_memory_gb=max_memory_gb) as file:
        if len(file.shape) == 4:
            raise InputError(
                path, expected="a 3-D label map", received=f"shape {file.shape}"
            )
        raw = file.read()
        grid = _grid(file)
        notes = file.notes
        data = label_values.to_integers(
            grid.canonical_view(raw),
            file.slope,
            file.intercept,
            path=path,
            round_labels=round_labels,
        )
    return Volume(data, grid.spacing_mm(), grid, log_notes(grid.path, notes))


def save_labels(
    path: str | os.PathLike,
    labels: np.ndarray,
    grid: Grid,
    *,
    classes: Sequence[Label] = (),
) -> None:
    """Writes a label map atomically.

    Args:
      path: file to write, `.nii.gz` or `.nii`.
      labels: (z, y, x) integers, canonical orientation.
      grid: the grid of the image that the labels belong to.
      classes: names and values for the label table in the header, the background first;
        empty for no table.
    """
    header = grid.header.copy()
    nifti_labels.describe_labels(header, classes)
    array = grid.from_canonical(labels.astype(smallest_dtype(labels)))
    _save(path, array, grid.image_class, header)


def smallest_dtype(labels: np.ndarray) -> type[np.integer]:
    """Returns the type in which a label map with these values is written."""
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    types = (np.uint8, np.int16, np.int32, np.int64)
    return next(
        dtype
        for dtype in types
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max
    )


def save_probabilities(
    path: str | os.PathLike, probabilities: np.ndarray, grid: Grid
) -> None:
    """Writes class probabilities as one 4-D file atomically.

    Args:
      path: file to write.
      probabilities: (z, y, x, K) floats, canonical orientation.
      grid: the grid of the image that the probabilities belong to.
    """
    array = stack_probabilities(probabilities, grid)
    _save(path, array, grid.image_class, grid.header.copy())


def stack_probabilities(probabilities: np.ndarray, grid: Grid) -> np.ndarray:
    """Converts (z, y, x, K) probabilities to the disk order of a grid, (x, y, z, K)."""
    channels = [
        grid.from_canonical(probabilities[..., k].astype(np.float32))
        for k in range(probabilities.shape[-1])
    ]
    return np.stack(channels, axis=-1)


def _read_as_float32(
    path: str | os.PathLike, max_memory_gb: float | None
) -> tuple[np.ndarray, Grid, list[str]]:
    """Returns the array in disk order, grid and notes."""
    with nifti_file.open_nifti(path, max_memory_gb=max_memory_gb) as file:
        raw = file.read()
        array, notes = to_float32(raw, file.slope, file.intercept, path=path)
        file.notes += notes
        return array, _grid(file), file.notes


def _grid(file: NiftiFile) -> Grid:
    x, y, z = file.shape[:3]
    return _make_grid(file.header.copy(), str(file.path), (x, y, z), file.image_class)


def _make_grid(
    header: nib.nifti1.Nifti1Header,
    path: str,
    shape: tuple[int, int, int],
    image_class: type[nib.nifti1.Nifti1Image],
) -> Grid:
    affine = np.array(header.get_best_affine(), dtype=float)
    affine[:3] *= nifti_header.mm_per_unit(header)
    return Grid(path, shape, affine, header, image_class)


def _save(
    path: str | os.PathLike,
    array: np.ndarray,
    image_class: type[nib.nifti1.Nifti1Image],
    header: nib.nifti1.Nifti1Header,
) -> None:
    path = pathlib.Path(path)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    image = image_class(array, None, header)
    data = image.to_bytes()
    if path.name.endswith(".gz"):
        data = gzip.compress(data, compresslevel=4, mtime=0)
    with files.atomic_write(path) as partial:
        partial.write_bytes(data)
