"""Estimates the memory that a case takes while it is converted."""

from __future__ import annotations

import math

import numpy as np

from data_prep.convert.part_files import ConversionJob
from u2net_tf.errors import InputError
from u2net_tf.volumes.crop_and_resample import ResampledCrop
from u2net_tf.volumes.preparation_memory import (
    image_size,
    preparation_bytes,
    reading_bytes,
    uncropped,
)

_FLOAT = 4
# Bytes per voxel of a label map while it is read: as stored, as integers twice at most,
# and as classes.
_BYTES_OF_LABELS_READ = 21
# Bytes per voxel of the classes and of the mask of the foreground.
_BYTES_OF_LABELS = 2
# Bytes that NumPy copies at a time when it writes a `.npz` file.
_BYTES_WRITTEN = 2**24


def conversion_bytes(job: ConversionJob) -> float:
    """Estimates the bytes of a case: an upper bound, from headers alone.

    Two modalities took up to 98 % of it in measurements, one modality up to 80 %. The
    label map counts as large as the image, as it should be. If the header of the image
    cannot be read, the case counts as 0: converting it raises the error.
    """
    resample = job.resample_modalities or job.domain.preprocessing.resample_modalities
    size = image_size(
        job.case.image_paths,
        resample_modalities=resample,
        max_memory_gb=job.max_memory_gb,
    )
    if size is None:
        return 0
    with_labels = _FLOAT * size.num_values + _BYTES_OF_LABELS_READ * size.num_voxels
    read = max(reading_bytes(size.num_values), with_labels)
    try:
        crop = uncropped(size.grid, job.domain)
    except InputError:
        # Too many voxels for any memory, which is found when the case has been read.
        return read
    return max(read, _preprocessing_bytes(crop, job))


def _preprocessing_bytes(crop: ResampledCrop, job: ConversionJob) -> float:
    num_modalities = job.domain.num_modalities
    raw, new = math.prod(crop.raw_shape), math.prod(crop.shape)
    # ITK copies labels before and after resampling. Then the image is written.
    stored = np.dtype(job.image_dtype).itemsize * num_modalities * new
    preprocessed = _FLOAT * num_modalities * new + stored + min(stored, _BYTES_WRITTEN)
    with_labels = (_FLOAT * num_modalities + 1) * raw + preprocessed + 2 * new
    prepared = preparation_bytes(crop, num_modalities)
    return _BYTES_OF_LABELS * raw + max(prepared, with_labels)
