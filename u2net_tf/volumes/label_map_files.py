"""Label maps in every format that is written, by the ending of the name."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import (
    case,
    dicom_segmentation,
    images,
    itk_files,
    seg_nrrd,
)
from u2net_tf.volumes.anatomy import find_anatomy
from u2net_tf.volumes.grid import Grid
from u2net_tf.wording import first_few

# Endings of names of label maps, by the name of their format. "input" is that of the
# scan.
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
# Of formats that have no place for probabilities.
_PROBABILITY_SUFFIXES = {seg_nrrd.SUFFIX: ".nrrd", dicom_segmentation.SUFFIX: _NIFTI}


def output_suffix(path: str | os.PathLike, output_format: str) -> str:
    """The ending of the label map of a scan, with the dot.

    Args:
      path: the scan's first file, or DICOM folder.
      output_format: of `OUTPUT_SUFFIXES`; "input" stands for that of the scan, or
        `.nii.gz` for NIfTI and DICOM.
    """
    if output_format != "input":
        return OUTPUT_SUFFIXES[output_format]
    path = pathlib.PurePath(path)
    return path.suffix.lower() if itk_files.is_itk_file(path) else _NIFTI


def probabilities_suffix(suffix: str) -> str:
    """The ending of the file of probabilities beside a label map with an ending."""
    return _PROBABILITY_SUFFIXES.get(suffix, suffix)


def require_format(
    output_format: str, paths: Sequence[str | os.PathLike], domain: Domain
) -> None:
    """Checks that label maps can be written in a format, before any is.

    Args:
      output_format: of `OUTPUT_SUFFIXES`.
      paths: the first file or DICOM folder of each scan.
      domain: gives the classes.

    Classes without a code of their anatomy are named in a warning.

    Raises:
      InputError: names a scan that is not DICOM, for DICOM segmentations, or a class
        whose value the format cannot hold.
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
    """Logs which code the anatomy of each class is given, and which have none."""
    unknown = []
    for label in domain.labels[1:]:
        anatomy = find_anatomy(label)
        if anatomy.is_known:
            side = f", {anatomy.side.meaning}" if anatomy.side else ""
            logging.info(
                "%s: %s is SNOMED CT %s (%s%s)",
                domain.name,
                label.name,
                anatomy.kind.value,
                anatomy.kind.meaning,
                side,
            )
        else:
            unknown.append(label.name)
    if unknown:
        logging.warning(
            "%s: no code of anatomy for %s; other programs see only the name",
            domain.name,
            first_few(unknown),
        )


def require_format_for(grid: Grid, path: str | os.PathLike) -> None:
    """Checks that a file of this name can hold a grid.

    Args:
      grid: of the scan.
      path: of a label map, in any format.

    Raises:
      InputError: as `itk_files.require_format_for`; and for a DICOM segmentation, if
        the scan lacks what it has to refer to.
    """
    itk_files.require_format_for(grid, path)
    if _suffix(path) == dicom_segmentation.SUFFIX:
        dicom_segmentation.check_source(grid.path)


def save_label_map(
    path: str | os.PathLike, classes: np.ndarray, grid: Grid, domain: Domain
) -> None:
    """Writes a label map with the names of its classes: whole or not at all.

    NIfTI, NRRD and MetaImage files hold the raw values of the classes. NRRD and
    MetaImage have no place for their names.

    Args:
      path: file to write. Its ending says in which format: one of `OUTPUT_SUFFIXES`.
      classes: (z, y, x) class indices, canonical orientation.
      grid: the grid of the scan that they belong to.
      domain: gives names and values of the classes.

    Raises:
      InputError: if there is no format with this extension, or it cannot hold them.
      StoppedError: if a package is missing.
    """
    suffix = _require_suffix(path)
    if suffix == seg_nrrd.SUFFIX:
        seg_nrrd.save(path, classes, grid, domain)
    elif suffix == dicom_segmentation.SUFFIX:
        dicom_segmentation.save(path, classes, grid, domain)
    else:
        labels = case.raw_labels(classes, domain)
        images.save_labels(path, labels, grid, classes=domain.labels)


def _require_suffix(path: str | os.PathLike) -> str:
    name = pathlib.PurePath(path).name.lower()
    known = sorted({suffix for suffix in OUTPUT_SUFFIXES.values() if suffix})
    if not name.endswith(tuple(known)):
        raise InputError(
            path, expected=f"an extension among {', '.join(known)}", received=name
        )
    return _suffix(path)


def _suffix(path: str | os.PathLike) -> str:
    """The ending of the formats that need one of their own, else the last."""
    name = pathlib.PurePath(path).name.lower()
    return (
        seg_nrrd.SUFFIX if name.endswith(seg_nrrd.SUFFIX) else name[name.rfind(".") :]
    )
