"""Headers of DICOM files, whose values are used exactly as stored or rejected.

Pixel readers replace what they cannot use by defaults: 1 mm, the axes of the patient, a
slope of 1. So each header is first read by pydicom, without conversions that could
repair a value.
"""

from __future__ import annotations

import functools
import logging
import mmap
import pathlib
import re
import struct
import warnings
from collections.abc import Sequence
from typing import BinaryIO, cast

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.valuerep import VR

from u2net_tf.errors import InputError
from u2net_tf.volumes.dicom_content import DicomContent

# The tags that are read; others are skipped.
_KEYWORDS = (
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "ConcatenationUID",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "NumberOfSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelData",
)
# Longer values are skipped: sequences are read on request, pixels never.
_DEFERRED_BYTES = 4096
# Raised by pydicom for values that do not match their type.
_PARSE_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
# Stricter than `float`, which also accepts "1_000" and "infinity".
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

# Larger numbers are not measurements, and their squares overflow.
_MAX_NUMBER = 1e30

# pydicom reports repairs without the file name. What matters is checked here.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


class Header:
    """The header of a DICOM file.

    Args:
      path: the file.

    Raises:
      InputError: if the file is damaged.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        try:
            self._dataset = self._parse(_KEYWORDS, deferred_bytes=_DEFERRED_BYTES)
            syntax = self._dataset.file_meta.get("TransferSyntaxUID")
            self.is_compressed = bool(syntax and syntax.is_encapsulated)
            self.is_deflated = bool(syntax and syntax.is_deflated)
            self.is_big_endian = not self._dataset.original_encoding[1]
            self._size = path.stat().st_size
            # GDCM reads the bytes after an unknown type as a length of gigabytes.
            for element in self._dataset.file_meta.values():
                VR(element.VR)
        except _PARSE_ERRORS as error:
            raise self._damaged(_describe(error)) from error
        if not len(self._dataset):
            raise self._damaged("no tag that can be read")
        self._elements = _by_tag(self._dataset)

    def _parse(
        self, keywords: Sequence[str], *, deferred_bytes: int | None = None
    ) -> FileDataset:
        with (
            self.path.open("rb") as file,
            DicomContent(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", module="pydicom")
            return pydicom.dcmread(
                cast(BinaryIO, content),
                defer_size=deferred_bytes,
                stop_before_pixels=deferred_bytes is None,
                force=True,
                specific_tags=list(keywords),
            )

    def _damaged(self, received: str) -> InputError:
        return InputError(self.path, expected="a DICOM file", received=received)

    def error(
        self, keyword: str, expected: str, received: object, hint: str = ""
    ) -> InputError:
        """Returns an error with the file and a tag: "PixelSpacing (0028,0030)"."""
        tag = _tag(keyword)
        return InputError(
            f"{self.path}: {keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})",
            expected=expected,
            received=received,
            hint=hint,
        )

    def has(self, keyword: str, item: Dataset | None = None) -> bool:
        """Returns whether a tag is present, even if empty."""
        return _tag(keyword) in (self._elements if item is None else _by_tag(item))

    def text(self, keyword: str, item: Dataset | None = None) -> str:
        """Returns the value of a tag as text; "" if it is absent or empty.

        Args:
          keyword: name of the tag.
          item: the item of a sequence that contains the tag; None for the data set.

        Raises:
          InputError: if it is damaged.
        """
        return self._value(keyword, item).decode("latin-1").lstrip(" ").rstrip(" \0")

    def number(self, keyword: str, item: Dataset | None = None) -> float | None:
        """Returns the number that a tag stores as text; None if absent or empty.

        Raises:
          InputError: if it is anything but a finite number.
        """
        if not self.text(keyword, item):
            return None
        (value,) = self.numbers(keyword, 1, item)
        return float(value)

    def numbers(
        self, keyword: str, count: int, item: Dataset | None = None
    ) -> np.ndarray:
        """Returns the numbers that a tag stores as text.

        Raises:
          InputError: if it does not contain `count` finite numbers.
        """
        text = self.text(keyword, item)
        parts = [part.strip(" ") for part in text.split("\\")]
        if len(parts) == count and all(map(_NUMBER.fullmatch, parts)):
            values = np.array([float(part) for part in parts])
            if np.abs(values).max() < _MAX_NUMBER:
                return values
        expected = "a number" if count == 1 else f"{count} numbers"
        raise self.error(keyword, expected, repr(text[:80]) if text else "no value")

    def integer(self, keyword: str) -> int:
        """Returns the integer that a tag stores in 2 bytes.

        Raises:
          InputError: if it is absent or anything else.
        """
        value = self._value(keyword)
        if len(value) != 2:
            raise self.error(keyword, "an integer", value[:80] or "no value")
        return int.from_bytes(value, "big" if self.is_big_endian else "little")

    @property
    def series_uid(self) -> str:
        """UID of the series that the file belongs to.

        Raises:
          InputError: if it is missing.
        """
        text = self.text("SeriesInstanceUID")
        if not text:
            raise self.error("SeriesInstanceUID", "a value", "no value")
        return text

    @property
    def num_frames(self) -> int:
        """Number of planes of voxels in the file.

        Raises:
          InputError: if it is not a positive integer.
        """
        if not self.has("NumberOfFrames"):
            return 1
        number = self.number("NumberOfFrames")
        if number is None or number < 1 or number % 1:
            raise self.error(
                "NumberOfFrames",
                "a positive integer",
                repr(self.text("NumberOfFrames")[:80]),
            )
        return int(number)

    def items(self, keyword: str, item: Dataset | None = None) -> list[Dataset]:
        """Returns the items of a sequence; empty if it is absent.

        Raises:
          InputError: if it is damaged.
        """
        if not self.has(keyword, item):
            return []
        try:
            if item is None:
                item = self._parse([keyword])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="pydicom")
                return list(item[keyword].value or [])
        except _PARSE_ERRORS as error:
            raise self.error(keyword, "a sequence", _describe(error)) from error

    def value_offset(self, keyword: str) -> int:
        """Returns the offset of a tag's value in a file that is not deflated."""
        return cast(RawDataElement, self._elements[_tag(keyword)]).value_tell

    def check_pixel_bytes(self, expected: int) -> None:
        """Checks that the file contains this many bytes of pixels, unless compressed.

        Raises:
          InputError: if the file contains no pixels, or a different number of bytes.
        """
        element = self._elements.get(_tag("PixelData"))
        if not isinstance(element, RawDataElement):
            raise self.error("PixelData", "a value", "no value")
        encapsulated = element.length == 0xFFFFFFFF
        if self.is_compressed != encapsulated:
            raise self.error(
                "PixelData",
                "compressed pixels" if self.is_compressed else "uncompressed pixels",
                "the opposite, in contradiction to TransferSyntaxUID",
            )
        if encapsulated:
            return
        length = element.length
        if not self.is_deflated:
            available = self._size - element.value_tell
            # The remainder may be another tag, whose header has 8 bytes; if it is
            # shorter, bytes were inserted before the pixels.
            remainder = available - length
            length = available if remainder < 0 or 0 < remainder < 8 else length
        # Values are padded to an even number of bytes.
        if length not in (expected, expected + expected % 2):
            raise self.error("PixelData", f"{expected} bytes", f"{length} bytes")

    def _value(self, keyword: str, item: Dataset | None = None) -> bytes:
        """Returns the bytes of a tag; b"" if it is absent."""
        elements = self._elements if item is None else _by_tag(item)
        element = elements.get(_tag(keyword))
        if element is None:
            return b""
        if not isinstance(element, RawDataElement):
            # pydicom has already converted some values.
            return str(element.value).encode("latin-1", "replace")
        value = bytes(element.value or b"")
        if len(value) < element.length:
            raise self.error(keyword, "a value", f"one of {element.length} bytes")
        return value


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:160]


def _by_tag(dataset: Dataset) -> dict[int, RawDataElement | DataElement]:
    """Returns unconverted elements by integer tags, which are faster to look up."""
    return {int(element.tag): element for element in dataset.values()}


@functools.cache
def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag
