"""Counts the voxels of the segments in DICOM segmentations."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.anatomy import as_long_string

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Identifies the segment of a frame.
_SEGMENT = "SegmentIdentificationSequence"
# Raised by pydicom and highdicom for attributes that are missing or malformed.
ATTRIBUTE_ERRORS = (
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    OverflowError,
)


def count_voxels(path: str | os.PathLike, domain: Domain) -> dict[int, int]:
    """Counts the voxels per segment in a file that `dicom_segmentation.save` wrote.

    Args:
      path: the file, which may have been edited since.
      domain: provides the classes.

    Returns:
      Index of the class -> number of voxels, for the classes in the file.

    Raises:
      InputError: if the file is not a segmentation, or has segments that are not those
        of the classes.
    """
    import pydicom

    try:
        with without_validation():
            dataset = pydicom.dcmread(path)
            # Groups that all frames share, as with a single segment, are stored once.
            shared = dataset.SharedFunctionalGroupsSequence[0]
            numbers = [
                int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
                for item in dataset.PerFrameFunctionalGroupsSequence
                for groups in [item if _SEGMENT in item else shared]
            ]
            segments = {
                int(s.SegmentNumber): s.SegmentLabel for s in dataset.SegmentSequence
            }
            counts = dict.fromkeys(segments, 0)
            for number, frame in zip(numbers, _iter_frames(dataset), strict=True):
                counts[number] += int(np.count_nonzero(frame))
    except (*ATTRIBUTE_ERRORS, pydicom.errors.InvalidDicomError) as error:
        raise InputError(
            path,
            expected="a DICOM segmentation written by `python -m u2net_tf.predict`",
            received=f"{type(error).__name__}: {error}"[:160],
        ) from error
    classes = {
        number: as_long_string(label.name)
        for number, label in enumerate(domain.labels)
        if number
    }
    if not segments.items() <= classes.items():
        raise InputError(
            path,
            expected=f"the segments {_numbered(classes)}",
            received=_numbered(segments),
        )
    return counts


def _numbered(segments: Mapping[int, str]) -> str:
    return ", ".join(f"{number}: {label}" for number, label in segments.items())


def _iter_frames(dataset: Dataset) -> Iterator[np.ndarray]:
    """Yields frames one by one; all together take eight times the size of the file."""
    from pydicom.pixels import iter_pixels

    rows, columns = dataset.Rows, dataset.Columns
    size = rows * columns
    if dataset.BitsAllocated > 1 or size % 8 == 0:
        yield from iter_pixels(dataset, raw=True)
        return
    # pydicom fails for most frames that begin or end within a byte.
    content = np.frombuffer(dataset.PixelData, np.uint8)
    for start in range(0, size * int(dataset.NumberOfFrames), size):
        first, skipped = divmod(start, 8)
        last = -(-(start + size) // 8)
        bits = np.unpackbits(content[first:last], bitorder="little")
        yield bits[skipped : skipped + size].reshape(rows, columns)


@contextlib.contextmanager
def without_validation() -> Iterator[None]:
    """Accepts invalid header values, so that a patient's attributes are unchanged."""
    from pydicom.config import disable_value_validation

    with disable_value_validation(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="(pydicom|highdicom)")
        yield
