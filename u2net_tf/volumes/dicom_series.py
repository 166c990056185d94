"""Selection of the files in a folder that are the slices of its DICOM series."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.files import what_is_at
from u2net_tf.volumes import dicom_planes
from u2net_tf.volumes.dicom_folder import is_dicom_file, list_files
from u2net_tf.volumes.dicom_headers import Header
from u2net_tf.volumes.dicom_planes import Plane
from u2net_tf.wording import first_few, quantity

# Objects with pixels that are not images of the patient: segmentations and doses.
_NO_IMAGES = ("1.2.840.10008.5.1.4.1.1.66.", "1.2.840.10008.5.1.4.1.1.481.")
# PET, enhanced PET and nuclear medicine.
_SLOPE_PER_SLICE = (
    "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.130",
    "1.2.840.10008.5.1.4.1.1.20",
)
# Largest error of a stated distance between slices without a note, as a fraction.
_STEP_TOLERANCE = 0.01
# Largest offset of a slice from its position, as a fraction of the slice distance.
_POSITION_TOLERANCE = 0.1


def read_series(path: str | os.PathLike) -> tuple[list[Plane], list[str]]:
    """Reads the headers of the series in a folder.

    Args:
      path: a multi-frame file, which is complete by itself; or a folder that contains
        one series with several planes or, failing that, one with a single plane.
        Localizers, objects that are not images, and single images next to the series
        are skipped.

    Returns:
      The planes of the series, in order of position, and notes on anomalies and on
      skipped files.

    Raises:
      InputError: if there is no such series or several, or a file is damaged or
        inconsistent with the others.
    """
    path = pathlib.Path(path)
    if path.is_file():
        planes = _read_planes([_read_multi_frame(path)])
        return planes, _step_notes(planes) + _rescale_notes(planes)
    others = []
    groups: dict[str, list[Header]] = {}
    for file in list_files(path) if path.is_dir() else []:
        if is_dicom_file(file):
            header = Header(file)
            groups.setdefault(header.series_uid, []).append(header)
        else:
            others.append(file)
    headers = groups.pop(_choose_series(path, groups))
    _require_no_damaged_slice(others, headers)
    planes = _read_planes(headers)
    for group in groups.values():
        _require_no_lost_slice(group, planes)
        others += [header.path for header in group]
    notes = []
    if others:
        notes.append(
            f"reads {quantity(len(headers), 'file')} of series "
            f"{headers[0].series_uid}; skips "
            f"{first_few([file.name for file in others])}"
        )
    notes += _numbering_notes(path, planes) + _step_notes(planes)
    return planes, notes + _rescale_notes(planes)


def _read_multi_frame(path: pathlib.Path) -> Header:
    header = Header(path)
    if header.num_frames == 1:
        raise InputError(
            path,
            expected="a folder with a DICOM series, or a multi-frame file",
            received="a file with one slice",
            hint="Use all slices of the series, or the folder that contains them",
        )
    if not _is_image(header):
        raise header.error(
            "SOPClassUID", "an image", header.text("SOPClassUID") or "no value"
        )
    return header


def _choose_series(folder: pathlib.Path, groups: dict[str, list[Header]]) -> str:
    """Returns the only series that is a volume, else the only one that is an image."""
    images = {
        name: sum(header.num_frames for header in headers)
        for name, headers in groups.items()
        if any(map(_is_image, headers))
    }
    found = [name for name, planes in images.items() if planes > 1] or list(images)
    if len(found) == 1:
        return found[0]
    received = [
        f"{quantity(images[name], 'slice')} such as {groups[name][0].path.name}"
        for name in found
    ]
    hint = ""
    if found:
        hint = "Put each series into a separate folder"
        if all(groups[name][0].num_frames > 1 for name in found):
            hint = "Use each multi-frame file by itself, not their folder"
    raise InputError(
        folder,
        expected="a folder with one DICOM series",
        received=f"{len(found)} series"
        + (f" ({first_few(received)})" if received else ""),
        hint=hint,
    )


def _is_image(header: Header) -> bool:
    return (
        header.has("PixelData")
        and not header.text("SOPClassUID").startswith(_NO_IMAGES)
        and "LOCALIZER" not in header.text("ImageType").split("\\")
    )


def _require_no_damaged_slice(
    others: list[pathlib.Path], headers: list[Header]
) -> None:
    """Checks that no file, judging by its name, is a slice with a damaged beginning."""
    suffixes = {header.path.suffix.lower() for header in headers}
    for path in others:
        suffix = path.suffix.lower()
        size = path.stat().st_size if os.path.exists(path) else None
        # Names are often UIDs, which end in a number.
        if size == 0 or suffix in suffixes or suffix[1:].isdecimal():
            raise InputError(
                path,
                expected="a DICOM file, like those next to it",
                received=what_is_at(path)
                if size is None
                else f"{quantity(size, 'byte')} of something else",
                hint="Remove the file if it is not a slice of the series",
            )


def _read_planes(headers: list[Header]) -> list[Plane]:
    dicom_planes.check_pixel_formats(headers)
    for header in headers:
        if header.has("ConcatenationUID"):
            raise header.error(
                "ConcatenationUID",
                "a file with all frames of its series",
                "one of several files that contain them",
            )
    if len(headers) > 1:
        for header in headers:
            if header.num_frames > 1:
                raise header.error(
                    "NumberOfFrames",
                    f"1 in each of {len(headers)} files of a series",
                    header.num_frames,
                )
    planes = [plane for header in headers for plane in dicom_planes.read_planes(header)]
    dicom_planes.check_parallel(planes)
    normal = planes[0].normal
    return sorted(planes, key=lambda plane: float(plane.position_mm @ normal))


def _require_no_lost_slice(headers: list[Header], planes: list[Plane]) -> None:
    """Checks by its position that another series is not a lost slice of this one."""
    if len(headers) > 1 or len(planes) < 2 or headers[0].num_frames > 1:
        return
    header = headers[0]
    try:
        (plane,) = dicom_planes.read_planes(header)
    except InputError:
        # Its position is unknown: it may be a slice.
        if header.text("SOPClassUID") == planes[0].header.text("SOPClassUID"):
            raise
        return
    try:
        dicom_planes.check_pixel_formats([header, planes[0].header])
        dicom_planes.check_parallel([plane, *planes])
    except InputError:
        return
    normal = planes[0].normal
    positions = np.array([other.position_mm @ normal for other in planes])
    step = float(np.median(np.diff(positions)))
    gap = np.abs(positions - plane.position_mm @ normal).min()
    offset = plane.position_mm - planes[0].position_mm
    in_plane_offset = np.linalg.norm(offset - normal * (offset @ normal))
    # At either end of the series or, if it was the middle of three slices, within it.
    steps = (step, step / 2) if len(planes) == 2 else (step,)
    error = in_plane_offset + min(abs(gap - distance) for distance in steps)
    if step > 0 and error < _POSITION_TOLERANCE * step:
        raise plane.header.error(
            "SeriesInstanceUID",
            f"{planes[0].header.series_uid}, according to its position",
            plane.header.series_uid,
        )


def _numbering_notes(folder: pathlib.Path, planes: list[Plane]) -> list[str]:
    """Compares the number of slices with the headers."""
    header = planes[0].header
    if header.num_frames > 1:
        return []
    if header.has("NumberOfSlices"):
        number = header.integer("NumberOfSlices")
        if number > len(planes):
            raise header.error(
                "NumberOfSlices", f"{len(planes)}, the slices in {folder}", number
            )
    texts = [plane.header.text("InstanceNumber") for plane in planes]
    if not all(text.isdecimal() for text in texts):
        return []
    numbers = {int(text) for text in texts}
    if min(numbers) <= 1 and max(numbers) - min(numbers) < len(planes):
        return []
    return [
        f"has {quantity(len(planes), 'slice')} with InstanceNumber {min(numbers)} to "
        f"{max(numbers)}; some may be missing"
    ]


def _step_notes(planes: list[Plane]) -> list[str]:
    """Compares the distance between slices with the headers."""
    stated = [abs(plane.step_mm) for plane in planes if plane.step_mm]
    if not stated or len(planes) == 1:
        return []
    positions = [plane.position_mm @ planes[0].normal for plane in planes]
    step = float(np.median(np.diff(positions)))
    worst = max(stated, key=lambda length: abs(length - step))
    if abs(worst - step) <= _STEP_TOLERANCE * step:
        return []
    return [
        f"SpacingBetweenSlices is {worst:.6g} mm, but ImagePositionPatient has slices "
        f"{step:.6g} mm apart; using the latter"
    ]


def _rescale_notes(planes: list[Plane]) -> list[str]:
    """Lists slices that are rescaled differently from most.

    In PET each slice has its own slope, but the same intercept.
    """
    slopes_differ = planes[0].header.text("SOPClassUID") in _SLOPE_PER_SLICE
    rescales = [
        plane.rescale and (0.0 if slopes_differ else plane.rescale[0], plane.rescale[1])
        for plane in planes
    ]
    most_common = max(rescales, key=rescales.count)
    different = [
        f"{plane.rescale} in {plane.header.path.name}"
        for plane, rescale in zip(planes, rescales, strict=True)
        if rescale != most_common
    ]
    if not different:
        return []
    return [
        f"RescaleSlope and RescaleIntercept are {first_few(different)}; in most slices "
        f"they are {most_common}"
    ]
