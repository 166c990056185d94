"""Preprocesses cases in workers and writes each to a part file.

A resumed conversion reuses the part files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from u2net_tf import files, work_log
from u2net_tf.errors import InputError
from u2net_tf.files import FileSignature
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.shards.manifest import ImageDtype
from u2net_tf.shards.record_size import require_record_size
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import case_labels, crop_and_resample, msd
from u2net_tf.volumes.cropped_foreground import describe_cropped_foreground

# To be increased with each change to preprocessing that changes voxels, so that parts
# of earlier versions are not used.
PREPROCESSING_VERSION = 1
# Raised when reading a file that is not a part file or is damaged.
_READ_ERRORS = (
    *(OSError, EOFError, ValueError, KeyError, AttributeError, TypeError),
    *(zipfile.BadZipFile, zlib.error),
)
# Fields of the manifest's `CaseEntry` that a part stores.
_PROVENANCE = (
    *("files", "raw_shape", "raw_spacing_mm", "raw_orientation", "raw_affine"),
    *("crop_start", "crop_shape", "shape", "spacing_mm"),
)


@dataclasses.dataclass(frozen=True)
class ConversionJob:
    """One case to preprocess.

    Attributes:
      domain: the case's domain.
      case: name and files of the case.
      group: group of the plan that the case is in: a fold or a split.
      image_dtype: data type in which the image is stored.
      signatures: signatures of the raw files at the start of the conversion, image
        first.
      part: path of the part file.
      max_memory_gb: see `memory.require_memory`.
      resample_modalities: whether modalities in separate files are resampled to the
        grid of the first one.
    """

    domain: Domain
    case: msd.Case
    group: str
    image_dtype: ImageDtype
    signatures: list[FileSignature]
    part: pathlib.Path
    max_memory_gb: float | None = None
    resample_modalities: bool = False

    @property
    def raw_paths(self) -> tuple[pathlib.Path, ...]:
        """The raw files: those of the image, then the label map."""
        return self.case.paths

    @property
    def key(self) -> str:
        """Key of the part; see `work_log.work_key`."""
        settings = [plan_hash(self.domain), self.image_dtype, PREPROCESSING_VERSION]
        if self.resample_modalities:
            settings.append("resample modalities")
        return work_log.work_key(
            [*settings, list(map(str, self.raw_paths))], self.signatures
        )


@dataclasses.dataclass(frozen=True)
class PreprocessedCase:
    """The content of a part file.

    Attributes:
      image: (z, y, x, C) in the job's `image_dtype`.
      labels: (z, y, x) uint8 class indices.
      provenance: fields of the manifest's `CaseEntry` that say what the case was made
        from.
    """

    image: np.ndarray
    labels: np.ndarray
    provenance: dict[str, Any]


def write_part(job: ConversionJob) -> InputError | None:
    """Writes the part of one case.

    Returns:
      The problem with the case, which names the file; None if there is none.
    """
    try:
        _write_part(job)
    except InputError as error:
        return error
    return None


def load_part(job: ConversionJob) -> PreprocessedCase:
    """Reads the part of one case.

    Raises:
      InputError: if it is damaged, is not a part file, or is that of another case, as
        where file names that differ in case are the same file.
    """
    received: object = "that of another case"
    try:
        with job.part.open("rb") as file, np.load(file) as part:
            if str(part["key"]) == job.key:
                return PreprocessedCase(
                    part["image"], part["labels"], _provenance(part)
                )
    except _READ_ERRORS as error:
        received = error
    raise InputError(
        job.part,
        expected=f"the part file of case {job.case.name!r}",
        received=received,
        hint="Remove it and convert again",
    )


def _provenance(part: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the provenance stored in a part.

    Raises:
      ValueError: if it has other fields.
    """
    found = json.loads(str(part["origin"]))
    if not isinstance(found, dict) or set(found) != set(_PROVENANCE):
        raise ValueError(f"expected {', '.join(_PROVENANCE)}. Received: {found!r:.200}")
    return found


def is_written(job: ConversionJob) -> bool:
    """Returns whether the part of one case exists and was made from the same input."""
    if not job.part.is_file():
        return False
    try:
        # NumPy does not close a damaged file that it has opened itself.
        with job.part.open("rb") as file, np.load(file) as part:
            _provenance(part)
            return str(part["key"]) == job.key
    except _READ_ERRORS:
        # Left by a machine that crashed; the part is written again.
        return False


def _write_part(job: ConversionJob) -> None:
    for path in job.raw_paths:
        if not os.path.isfile(path):
            raise InputError(path, expected="a file", received=files.what_is_at(path))
    limit = job.max_memory_gb
    image = case_files.read_image(
        job.case.image_paths,
        job.domain,
        resample_modalities=job.resample_modalities,
        max_memory_gb=limit,
    )
    labels = case_labels.read_labels(
        job.case.label_path, image.grid, job.domain, max_memory_gb=limit
    )
    crop = crop_and_resample.find_crop(image, job.domain, max_memory_gb=limit)
    foreground = labels != 0
    if job.domain.ignore_index is not None:
        foreground &= labels != job.domain.ignore_index
    path = job.case.label_path
    if note := describe_cropped_foreground(foreground, crop.box, path=path):
        logging.warning("%s", note)
    require_record_size(
        job.case.image_path,
        crop.shape,
        num_modalities=job.domain.num_modalities,
        image_dtype=job.image_dtype,
    )
    preprocessed, _ = crop_and_resample.preprocess_volume(image, job.domain, crop=crop)
    _require_range(preprocessed, job)
    labels = crop_and_resample.preprocess_labels(labels, crop)
    _check_annotated(labels, job)
    stored = preprocessed.astype(job.image_dtype, copy=False)
    provenance = {
        "files": list(map(str, job.raw_paths)),
        "raw_shape": crop.raw_shape,
        "raw_spacing_mm": image.spacing_mm,
        "raw_orientation": image.grid.axis_codes,
        "raw_affine": image.grid.affine.tolist(),
        "crop_start": crop.crop_start,
        "crop_shape": crop.crop_shape,
        "shape": crop.shape,
        "spacing_mm": job.domain.spacing_mm,
    }
    with files.atomic_write(job.part) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            key=job.key,
            origin=json.dumps(provenance),
            image=stored,
            labels=labels,
        )


def _check_annotated(labels: np.ndarray, job: ConversionJob) -> None:
    """Logs a warning if a case has no annotated voxels to train on.

    Nearest neighbours may miss a single annotated slice, for example.
    """
    ignored = job.domain.ignore_index
    if ignored is not None and (labels == ignored).all():
        logging.warning(
            "%s: all annotated voxels are lost when the case is cropped to the "
            "non-zero voxels of the image and resampled; nothing is learned from it",
            job.case.label_path,
        )


def _require_range(image: np.ndarray, job: ConversionJob) -> None:
    limit = float(np.finfo(job.image_dtype).max)
    low, high = float(image.min()), float(image.max())
    if not max(-low, high) <= limit:
        raise InputError(
            job.case.image_path,
            expected=f"standardized intensities up to {limit:.6g}, the largest number "
            f"of {job.image_dtype}",
            received=f"{low:.6g} to {high:.6g}",
            hint="Use `image_dtype`=float32" if job.image_dtype == "float16" else "",
        )
