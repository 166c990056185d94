"""Writing of label maps as DICOM segmentations (SEG) with highdicom.

A segmentation references the slices from which it was made, shares their planes, and
belongs to the same patient and study, whose attributes are copied from the slices.
"""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf import __version__, files
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.plan.anatomy import Code
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Label
from u2net_tf.volumes.anatomy import as_long_string, find_anatomy
from u2net_tf.volumes.class_colours import class_rgb
from u2net_tf.volumes.dicom_folder import is_dicom
from u2net_tf.volumes.dicom_segments import ATTRIBUTE_ERRORS, without_validation
from u2net_tf.volumes.grid import Grid

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.dataset import Dataset

    from u2net_tf.volumes.dicom_planes import Plane

SUFFIX = ".dcm"
_MANUFACTURER = "u2net-tf"
# Without these, other objects cannot reference a slice.
_REQUIRED = ("StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
# Attributes that may be empty but must exist, which anonymized files may lack.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_SEXES = ("M", "F", "O", "")
# Series number, beyond those that scanners count from 1.
_SERIES_NUMBER = 1000
_UTF8 = "ISO_IR 192"

# highdicom logs the modules that it copies, with the UIDs of the patient's slices.
logging.getLogger("highdicom").setLevel(logging.ERROR)


def require_highdicom() -> None:
    """Raises StoppedError if highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise StoppedError(
            "DICOM segmentations need highdicom, which is not installed: "
            "pip install 'u2net-tf[dicom_seg]'"
        ) from error


def require_dicom(path: str | os.PathLike) -> None:
    """Checks that a scan is DICOM.

    Raises:
      InputError: if it is not.
    """
    if not is_dicom(path):
        raise InputError(
            "`output_format`",
            expected="DICOM scans for dicom_seg",
            received=path,
            hint="Write nii.gz or seg_nrrd instead",
        )


def check_source(path: str | os.PathLike) -> None:
    """Checks that a segmentation can reference a series.

    Args:
      path: folder of the series, or a multi-frame file.

    Raises:
      InputError: if a slice lacks a required tag, or has the SOPInstanceUID of another
        one; names both.
    """
    _read_planes(path)


def _read_planes(path: str | os.PathLike) -> list[Plane]:
    from u2net_tf.volumes.dicom_series import read_series

    planes, _ = read_series(path)
    # SOPInstanceUID -> its file.
    files_by_uid: dict[str, pathlib.Path] = {}
    for plane in planes:
        header = plane.header
        for keyword in _REQUIRED:
            if not header.text(keyword):
                raise header.error(
                    keyword, "a value that dicom_seg can reference", "no value"
                )
        uid = header.text("SOPInstanceUID")
        other = files_by_uid.setdefault(uid, header.path)
        if other != header.path:
            raise header.error(
                "SOPInstanceUID", "a value of this slice alone", f"that of {other.name}"
            )
    return planes


def save(
    path: str | os.PathLike, classes: np.ndarray, grid: Grid, domain: Domain
) -> None:
    """Writes a segmentation with a binary segment per class, atomically.

    Args:
      path: file to write, `.dcm`.
      classes: (z, y, x) class indices, canonical orientation.
      grid: the grid of the series; its path is the folder or multi-frame file.
      domain: provides the classes. Names are shortened to what DICOM allows for labels.

    Raises:
      InputError: if the scan is not DICOM, a segmentation cannot reference a slice, or
        the file would be among the slices or replace the scan.
      StoppedError: if highdicom is not installed.
    """
    require_highdicom()
    require_dicom(grid.path)
    _require_other_place(pathlib.Path(path).resolve(), pathlib.Path(grid.path))
    planes = _read_planes(grid.path)
    frames = _on_planes(classes, grid, planes)
    with without_validation():
        segmentation = _make(_read_sources(planes), frames, domain)
        with files.atomic_write(path) as partial:
            segmentation.save_as(partial)


def _require_other_place(target: pathlib.Path, scan: pathlib.Path) -> None:
    if scan.resolve() in (target, target.parent):
        raise InputError(
            target, expected="a folder other than that of the scan", received=scan
        )


def _read_sources(planes: Sequence[Plane]) -> list[Dataset]:
    """Reads the headers of a series, with all attributes that highdicom copies."""
    import pydicom
    from pydicom.valuerep import DSfloat

    sources: list[Dataset] = []
    for path in dict.fromkeys(plane.header.path for plane in planes):
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        for keyword in _MAY_BE_EMPTY:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
        # Segmentations must state it; slices need not.
        if planes[0].header.num_frames == 1 and not dataset.get("SliceThickness"):
            dataset.SliceThickness = DSfloat(_step_mm(planes), auto_format=True)
        _clear_invalid(dataset)
        sources.append(dataset)
    return sources


def _step_mm(planes: Sequence[Plane]) -> float:
    """Returns the distance between neighbouring planes."""
    if len(planes) == 1:
        # It has been read: without thickness, the file states it.
        return planes[0].step_mm or 0.0
    first, second = (plane.position_mm for plane in planes[:2])
    return abs(float((second - first) @ planes[0].normal))


def _clear_invalid(dataset: Dataset) -> None:
    """Clears what highdicom rejects: invalid dates, times and sexes."""
    from pydicom.valuerep import DA, TM

    for keyword, kind in (
        ("PatientBirthDate", DA),
        ("StudyDate", DA),
        ("StudyTime", TM),
    ):
        try:
            kind(dataset[keyword].value)
        except ATTRIBUTE_ERRORS:
            dataset[keyword].value = ""
    if dataset.PatientSex not in _SEXES:
        dataset.PatientSex = ""


def _on_planes(classes: np.ndarray, grid: Grid, planes: Sequence[Plane]) -> np.ndarray:
    """Returns (plane, row, column) class indices, in the order of files or frames."""
    stacked = grid.from_canonical(classes.astype(np.uint8)).T
    if planes[0].header.num_frames == 1:
        return np.ascontiguousarray(stacked)
    frames = np.empty(stacked.shape, stacked.dtype)
    for plane, values in zip(planes, stacked, strict=True):
        frames[plane.frame] = values
    return frames


def _make(
    sources: Sequence[Dataset], frames: np.ndarray, domain: Domain
) -> Segmentation:
    import highdicom

    try:
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _describe(number, label, domain)
                for number, label in enumerate(domain.labels[1:], start=1)
            ],
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=_MANUFACTURER,
            manufacturer_model_name=_MANUFACTURER,
            software_versions=__version__,
            device_serial_number="1",
            content_label="SEGMENTATION",
            content_description=as_long_string(domain.name),
            series_description=as_long_string(f"Segmentation {domain.name}"),
            specific_character_set=_UTF8,
        )
    except ATTRIBUTE_ERRORS as error:
        raise InputError(
            sources[0].filename,
            expected="a series that highdicom can reference",
            received=f"{type(error).__name__}: {error}"[:300],
        ) from error


def _describe(number: int, label: Label, domain: Domain) -> SegmentDescription:
    import highdicom
    from pydicom.sr.codedict import codes

    anatomy = find_anatomy(label)
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=as_long_string(label.name),
        segmented_property_category=_concept(anatomy.category),
        segmented_property_type=_concept(anatomy.kind),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=as_long_string(f"{_MANUFACTURER} {domain.name}"),
            family=codes.cid7162.ArtificialIntelligence,
            version=__version__,
        ),
        display_color=highdicom.color.CIELabColor.from_rgb(
            *(round(255 * part) for part in class_rgb(number))
        ),
    )
    if description.SegmentLabel != label.name:
        description.SegmentDescription = label.name
    if anatomy.side is not None:
        (kind,) = description.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(anatomy.side)]
    return description


def _concept(code: Code) -> CodedConcept:
    import highdicom

    return highdicom.sr.CodedConcept(
        value=code.value, scheme_designator=code.scheme, meaning=code.meaning
    )
