"""Writes small DICOM files as scanners do, with pydicom."""

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

SERIES = "1.2.3.14"
ORIENTATION = (1, 0, 0, 0, 1, 0)


def slice_values(num_slices=6, size=8):
    """Draws stored values, (num_slices, size, size) int16."""
    values = np.random.default_rng(0).integers(-900, 900, (num_slices, size, size))
    return values.astype(np.int16)


def make_dataset(values, sop_class=uid.CTImageStorage, series=SERIES, number=1):
    """Returns a dataset with the tags that slices and multi-frame files share."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = f"{series}.{number}"
    dataset.SeriesInstanceUID = series
    dataset.InstanceNumber = number
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(values.dtype == np.int16)
    dataset.PixelData = values.tobytes()
    return dataset


def make_slice(values, z_mm, *, slope=1, intercept=-1024, **arguments):
    """Returns a slice at a height; for other arguments see `make_dataset`."""
    dataset = make_dataset(values, **arguments)
    dataset.ImagePositionPatient = [-10, 5, z_mm]
    dataset.ImageOrientationPatient = list(ORIENTATION)
    dataset.PixelSpacing = [0.75, 1.25]
    dataset.SliceThickness = 3
    dataset.RescaleSlope = slope
    dataset.RescaleIntercept = intercept
    return dataset


def make_series(num_slices=6, slopes=None, size=8, **arguments):
    """Returns a series with slices 3 mm apart; for other arguments see `make_slice`."""
    return [
        make_slice(
            plane,
            3 * index,
            number=index + 1,
            slope=slopes[index] if slopes else 1,
            **arguments,
        )
        for index, plane in enumerate(slice_values(num_slices, size))
    ]


def save(folder, datasets, name="{}.dcm"):
    """Writes datasets as 0.dcm, 1.dcm, …; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, dataset in enumerate(datasets):
        dataset.save_as(folder / name.format(index), enforce_file_format=True)
    return folder


def _group(**tags):
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return [item]


def make_enhanced(heights_mm, rescales=None):
    """Returns a multi-frame dataset.

    Args:
      heights_mm: heights of the frames, in the order of the file.
      rescales: (slope, intercept) of each frame, or None.
    """
    values = slice_values(len(heights_mm))
    dataset = make_dataset(values, uid.EnhancedMRImageStorage)
    dataset.NumberOfFrames = len(values)
    shared = Dataset()
    shared.PlaneOrientationSequence = _group(ImageOrientationPatient=list(ORIENTATION))
    shared.PixelMeasuresSequence = _group(PixelSpacing=[0.75, 1.25], SliceThickness=3)
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index, height in enumerate(heights_mm):
        frame = Dataset()
        frame.PlanePositionSequence = _group(ImagePositionPatient=[-10, 5, height])
        if rescales:
            slope, intercept = rescales[index]
            frame.PixelValueTransformationSequence = _group(
                RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US"
            )
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset


def replace_text(path, keyword, text):
    """Replaces the value of a tag by text, valid or not."""
    dataset = pydicom.dcmread(path)
    tag = pydicom.datadict.tag_for_keyword(keyword)
    raw = text.encode() + b" " * (len(text) % 2)
    element = dataset.get_item(tag)
    dataset[tag] = pydicom.dataelem.RawDataElement(
        element.tag, dataset[tag].VR, len(raw), raw, 0, False, True
    )
    dataset.save_as(path)
