"""The planes of voxels in a DICOM file, and their positions."""

from __future__ import annotations

import dataclasses

import numpy as np
from pydicom.dataset import Dataset

from u2net_tf.volumes.dicom_headers import Header

# Tolerance for unit length and perpendicularity of direction cosines.
_COSINE_TOLERANCE = 1e-3
# Tolerances between planes of a volume: direction cosines, and spacings as a fraction.
_ORIENTATION_TOLERANCE = 1e-4
_SPACING_TOLERANCE = 1e-4
# Tags that must be the same in all files of a series.
_COMMON_TEXT = ("SOPClassUID", "PhotometricInterpretation")
_COMMON_NUMBERS = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


@dataclasses.dataclass(frozen=True)
class Plane:
    """A plane of voxels.

    Attributes:
      header: header of its file.
      frame: index in the file.
      position_mm: (3,) centre of the first voxel, LPS.
      orientation: (6,) unit vectors along a row and along a column, LPS.
      spacing_mm: (2,) between rows and between columns.
      rescale: (slope, intercept) that convert stored values to intensities; None if the
        file has neither.
      thickness_mm: slice thickness; None if the file does not state it.
      step_mm: distance to the next plane; None if the file does not state it.
    """

    header: Header
    frame: int
    position_mm: np.ndarray
    orientation: np.ndarray
    spacing_mm: np.ndarray
    rescale: tuple[float, float] | None
    thickness_mm: float | None
    step_mm: float | None

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit normal of the plane, LPS."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return normal / np.linalg.norm(normal)

    @property
    def direction(self) -> np.ndarray:
        """(3, 3) orthogonal unit vectors along a row, a column and the normal."""
        normal = self.normal
        row = np.cross(self.orientation[3:], normal)
        row /= np.linalg.norm(row)
        return np.stack([row, np.cross(normal, row), normal], axis=1)


def read_planes(header: Header) -> list[Plane]:
    """Reads the planes of a file, in stored order.

    Raises:
      InputError: if the position or the intensities of a plane are not defined; names
        the file and the tag.
    """
    _check_pixels(header)
    if not header.has("PerFrameFunctionalGroupsSequence"):
        if header.num_frames > 1:
            raise header.error(
                "PerFrameFunctionalGroupsSequence", "a position per frame", "no value"
            )
        return [_read_plane(header, 0, {})]
    frames = header.items("PerFrameFunctionalGroupsSequence")
    if len(frames) != header.num_frames:
        raise header.error(
            "PerFrameFunctionalGroupsSequence",
            f"an item for each of {header.num_frames} frames",
            len(frames),
        )
    shared = header.items("SharedFunctionalGroupsSequence")[:1]
    groups = {name: _first(header, name, shared) for name in _GROUPS}
    return [
        _read_plane(
            header,
            index,
            {name: _first(header, name, [frame]) or groups[name] for name in _GROUPS},
        )
        for index, frame in enumerate(frames)
    ]


_POSITION, _ORIENTATION, _MEASURES, _VALUES = _GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)


def _first(header: Header, name: str, items: list[Dataset]) -> Dataset | None:
    found = [group for item in items for group in header.items(name, item)]
    return found[0] if found else None


def _read_plane(header: Header, frame: int, groups: dict[str, Dataset | None]) -> Plane:
    """Reads a plane from the items of functional groups, or from the file's tags."""
    measures = groups.get(_MEASURES)
    orientation = header.numbers("ImageOrientationPatient", 6, groups.get(_ORIENTATION))
    cosines = orientation.reshape(2, 3)
    if np.abs(cosines @ cosines.T - np.eye(2)).max() > _COSINE_TOLERANCE:
        raise header.error(
            "ImageOrientationPatient",
            "two perpendicular unit vectors",
            orientation.tolist(),
        )
    spacing = header.numbers("PixelSpacing", 2, measures)
    if (spacing <= 0).any():
        raise header.error("PixelSpacing", "lengths above 0 mm", spacing.tolist())
    return Plane(
        header=header,
        frame=frame,
        position_mm=header.numbers("ImagePositionPatient", 3, groups.get(_POSITION)),
        orientation=orientation,
        spacing_mm=spacing,
        rescale=_read_rescale(header, groups.get(_VALUES)),
        thickness_mm=header.number("SliceThickness", measures),
        step_mm=header.number("SpacingBetweenSlices", measures),
    )


def _read_rescale(header: Header, item: Dataset | None) -> tuple[float, float] | None:
    tags = ("RescaleSlope", "RescaleIntercept")
    if not any(header.has(tag, item) for tag in tags):
        return None
    slope, intercept = (float(header.numbers(tag, 1, item)[0]) for tag in tags)
    if slope == 0:
        raise header.error("RescaleSlope", "a factor other than 0", slope)
    return slope, intercept


def _check_pixels(header: Header) -> None:
    """Checks that each pixel is a single number, and that none is missing."""
    rows, columns = header.integer("Rows"), header.integer("Columns")
    for keyword, size in (("Rows", rows), ("Columns", columns)):
        if not size:
            raise header.error(keyword, "a positive number", size)
    samples = header.integer("SamplesPerPixel")
    if samples != 1:
        raise header.error("SamplesPerPixel", "1 (no colours)", samples)
    photometric = header.text("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise header.error(
            "PhotometricInterpretation", "MONOCHROME1 or MONOCHROME2", photometric
        )
    if header.has("ModalityLUTSequence"):
        raise header.error(
            "ModalityLUTSequence", "intensities by slope and intercept", "a table"
        )
    bits, stored = header.integer("BitsAllocated"), header.integer("BitsStored")
    if bits not in (8, 16, 32):
        raise header.error("BitsAllocated", "8, 16 or 32", bits)
    # GDCM misreads 32-bit pixels of fewer bits or in big-endian order.
    if bits == 32 and header.is_big_endian:
        raise header.error("BitsAllocated", "8 or 16 in a big-endian file", bits)
    if not 0 < stored <= bits or stored < bits == 32:
        expected = "32" if bits == 32 else f"1 to {bits}"
        raise header.error("BitsStored", expected, stored)
    if header.integer("HighBit") != stored - 1:
        raise header.error("HighBit", str(stored - 1), header.integer("HighBit"))
    if header.integer("PixelRepresentation") > 1:
        raise header.error(
            "PixelRepresentation", "0 or 1", header.integer("PixelRepresentation")
        )
    header.check_pixel_bytes(rows * columns * header.num_frames * bits // 8)


def check_pixel_formats(headers: list[Header]) -> None:
    """Checks that files have the same image size and pixel format.

    Raises:
      InputError: if they differ; names the first file that differs from most, and the
        tag.
    """
    # Compressed pixels may be stored with as few bits as each slice needs.
    may_differ = ("BitsStored", "HighBit") if headers[0].is_compressed else ()
    for keyword in (*_COMMON_TEXT, *_COMMON_NUMBERS):
        if keyword in may_differ:
            continue
        read = Header.text if keyword in _COMMON_TEXT else Header.integer
        values = [read(header, keyword) for header in headers]
        common = max(values, key=values.count)
        for header, value in zip(headers, values, strict=True):
            if value != common:
                raise header.error(keyword, f"{common} as in the other files", value)


def check_parallel(planes: list[Plane]) -> None:
    """Checks that planes are parallel, with equal spacing, and all or none rescaled.

    Raises:
      InputError: if they are not; names the file that differs from most, and the tag.
    """
    orientations = np.array([plane.orientation for plane in planes])
    spacings = np.array([plane.spacing_mm for plane in planes])
    for keyword, values, tolerance in (
        ("ImageOrientationPatient", orientations, _ORIENTATION_TOLERANCE),
        ("PixelSpacing", spacings, _SPACING_TOLERANCE * np.median(spacings)),
    ):
        median = np.median(values, axis=0)
        distances = np.abs(values - median).max(axis=1)
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            raise planes[worst].header.error(
                keyword,
                f"{median.tolist()} as in the other slices",
                values[worst].tolist(),
            )
    missing = [plane for plane in planes if plane.rescale is None]
    if 0 < len(missing) < len(planes):
        raise missing[0].header.error(
            "RescaleSlope", "a value as in the other slices", "no value"
        )
