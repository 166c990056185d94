"""Writing of label maps in any format, selected by the suffix of the file name."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import (
    case_labels,
    dicom_segmentation,
    images,
    itk_files,
    seg_nrrd,
)
from u2net_tf.volumes.anatomy import find_anatomy
from u2net_tf.volumes.grid import Grid
from u2net_tf.wording import first_few

# Suffixes of label maps by the name of their format; "input" is that of the scan.
OUTPUT_SUFFIXES = {
    "input": "",
    "nifti": ".nii.gz",
    "nii.gz": ".nii.gz",
    "nii": ".nii",
    "nrrd": ".nrrd",
    "mha": ".mha",
    "seg_nrrd": seg_nrrd.SUFFIX,
    "dicom_seg": dicom_segmentation.SUFFIX,
}
_NIFTI = ".nii.gz"
# Suffixes of probabilities, for formats that cannot store them.
_PROBABILITY_SUFFIXES = {seg_nrrd.SUFFIX: ".nrrd", dicom_segmentation.SUFFIX: _NIFTI}


def output_suffix(path: str | os.PathLike, output_format: str) -> str:
    """Returns the suffix of the label map of a scan, with the dot.

    Args:
      path: the scan's first file, or DICOM folder.
      output_format: a key of `OUTPUT_SUFFIXES`; "input" means the format of the scan,
        or `.nii.gz` for NIfTI and DICOM.
    """
    if output_format != "input":
        return OUTPUT_SUFFIXES[output_format]
    path = pathlib.PurePath(path)
    return path.suffix.lower() if itk_files.is_itk_file(path) else _NIFTI


def probabilities_suffix(suffix: str) -> str:
    """Returns the suffix of the probabilities that belong to a label map."""
    return _PROBABILITY_SUFFIXES.get(suffix, suffix)


def require_format(
    output_format: str, paths: Sequence[str | os.PathLike], domain: Domain
) -> None:
    """Checks in advance that label maps can be written in a format.

    Classes without an anatomy code are listed in a warning.

    Args:
      output_format: a key of `OUTPUT_SUFFIXES`.
      paths: the first file or DICOM folder of each scan.
      domain: provides the classes.

    Raises:
      InputError: if a scan is not DICOM, for DICOM segmentations, or the format cannot
        store the value of a class.
      StoppedError: if a package is missing.
    """
    if output_format == "seg_nrrd":
        seg_nrrd.require_values(domain)
        _log_codes(domain)
    if output_format == "dicom_seg":
        dicom_segmentation.require_highdicom()
        for path in paths:
            dicom_segmentation.require_dicom(path)
        _log_codes(domain)


def _log_codes(domain: Domain) -> None:
    """Logs the anatomy code of each class, and the classes without one."""
    unknown = []
    for label in domain.labels[1:]:
        anatomy = find_anatomy(label)
        if anatomy.is_known:
            side = f", {anatomy.side.meaning}" if anatomy.side else ""
            logging.info(
                "%s: %s is %s %s (%s%s)",
                domain.name,
                label.name,
                anatomy.kind.scheme,
                anatomy.kind.value,
                anatomy.kind.meaning,
                side,
            )
        else:
            unknown.append(label.name)
    if unknown:
        logging.warning(
            "%s: no anatomy code for %s; other programs see only the name",
            domain.name,
            first_few(unknown),
        )


def require_format_for(grid: Grid, path: str | os.PathLike) -> None:
    """Checks that the format of a file can store a grid.

    Args:
      grid: grid of the scan.
      path: the label map, in any format.

    Raises:
      InputError: see `itk_files.require_format_for`; for a DICOM segmentation, if the
        scan lacks tags that it must reference.
    """
    itk_files.require_format_for(grid, path)
    if _suffix(path) == dicom_segmentation.SUFFIX:
        dicom_segmentation.check_source(grid.path)


def save_label_map(
    path: str | os.PathLike, classes: np.ndarray, grid: Grid, domain: Domain
) -> None:
    """Writes a label map with the names of its classes atomically.

    NIfTI, NRRD and MetaImage files store the raw values of the classes. NRRD and
    MetaImage cannot store their names.

    Args:
      path: file to write. Its suffix, one of `OUTPUT_SUFFIXES`, determines the format.
      classes: (z, y, x) class indices, canonical orientation.
      grid: the grid of the scan that they belong to.
      domain: provides names and values of the classes.

    Raises:
      InputError: if there is no format with this suffix, or it cannot store them.
      StoppedError: if a package is missing.
    """
    suffix = _require_suffix(path)
    if suffix == seg_nrrd.SUFFIX:
        seg_nrrd.save(path, classes, grid, domain)
    elif suffix == dicom_segmentation.SUFFIX:
        dicom_segmentation.save(path, classes, grid, domain)
    else:
        labels = case_labels.raw_labels(classes, domain)
        images.save_labels(path, labels, grid, classes=domain.labels)


def _require_suffix(path: str | os.PathLike) -> str:
    name = pathlib.PurePath(path).name.lower()
    known = sorted({suffix for suffix in OUTPUT_SUFFIXES.values() if suffix})
    if not name.endswith(tuple(known)):
        raise InputError(
            path, expected=f"a suffix among {', '.join(known)}", received=name
        )
    return _suffix(path)


def _suffix(path: str | os.PathLike) -> str:
    """Returns `.seg.nrrd` for such files, else the last suffix."""
    name = pathlib.PurePath(path).name.lower()
    return (
        seg_nrrd.SUFFIX if name.endswith(seg_nrrd.SUFFIX) else name[name.rfind(".") :]
    )
