"""Examines one case of the survey: measurements, faults and warnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_prep.survey import measurements
from u2net_tf import files, schema, work_log
from u2net_tf.errors import InputError
from u2net_tf.plan.preprocessing import (
    IntensityStatistics,
    Preprocessing,
    SpacingSource,
)
from u2net_tf.schema import Count, Length, Size, Text
from u2net_tf.visualization import thumbnails
from u2net_tf.volumes import case as case_checks
from u2net_tf.volumes import case_labels, images, intensities
from u2net_tf.volumes.boxes import Box
from u2net_tf.volumes.cropped_foreground import describe_cropped_foreground
from u2net_tf.volumes.grid import Volume, header_problem, reorient_to

# The plan's default preprocessing.
DEFAULTS = Preprocessing()

# To be increased when a check or a measurement is added, so that an interrupted survey
# of an earlier version examines its cases again.
CHECKS_VERSION = 1
# Kinds of fault. See `plan.fitting_cases`.
IMAGE, LABEL, SAME_IMAGE = "image", "label", "same image"
CONTRAST = "contrast"
CROPPED_LABEL = "cropped label"
GEOMETRY = case_labels.GEOMETRY
UNKNOWN_LABEL, EMPTY_LABEL = case_labels.UNKNOWN_LABEL, case_labels.EMPTY_LABEL
SAME_NAME = "same name"


@schema.model
class Fault:
    """One fault of one file.

    Attributes:
      kind: one of the kinds above.
      file: path of the file, as in the survey.
      text: what was expected and what was found.
    """

    kind: Text
    file: Text
    text: Text

    def __str__(self) -> str:
        return self.text if self.file in self.text else f"{self.file}: {self.text}"


@dataclasses.dataclass(frozen=True)
class SurveyJob:
    """One case to examine.

    Attributes:
      domain: name of its domain.
      case: name of the case.
      image_paths: the image, one file or one per modality.
      label_path: the label map.
      num_modalities: number of channels that the image should have.
      known_labels: values of the classes.
      ignore_label: value of voxels without annotation; None if there is none.
      spacing_source: "pixdim" or "affine".
      round_labels: whether label values that are nearly integers are rounded.
      resample_modalities: whether files whose grid differs from that of the first are
        resampled to it, with a warning; otherwise they are a fault.
      max_memory_gb: see `memory.require_memory`.
      thumbnail: file to write a picture of the case to, if its image can be read; None
        for no picture.
    """

    domain: str
    case: str
    image_paths: tuple[str, ...]
    label_path: str
    num_modalities: int
    known_labels: tuple[int, ...]
    spacing_source: SpacingSource
    ignore_label: int | None = None
    round_labels: bool = False
    resample_modalities: bool = False
    max_memory_gb: float | None = None
    thumbnail: str | None = None

    @property
    def key(self) -> str:
        """Key of the result, with or without a thumbnail; see `work_log.work_key`."""
        return work_log.work_key(
            [
                CHECKS_VERSION,
                dataclasses.astuple(dataclasses.replace(self, thumbnail=None)),
            ],
            files.file_signatures([*self.image_paths, self.label_path]),
        )

    @property
    def image_path(self) -> str:
        """The image, or its first file."""
        return self.image_paths[0]


# Part of two file formats, the survey and the log of an unfinished one: a change here
# raises the versions of both, `survey_file.SURVEY` and `survey_domains.EXAMINED_CASE`.
@schema.model
class CaseFacts:
    """One row of the survey. Triples are z, y, x; empty where a file is unreadable.

    Attributes:
      domain: name of its domain.
      case: name of the case.
      image_path: the image; its first file if there is one per modality.
      label_path: the label map.
      shape: shape of the image, voxels.
      spacing_mm: voxel size, mm, from the survey's spacing source.
      orientation: orientation of the axes on disk, for example "RAS".
      length_unit: unit of the voxel sizes in the file, "mm", "µm" or "m"; "" if none is
        given.
      percentiles: per modality, the intensities at `measurements.PERCENTILES`, finite
        voxels only; empty for a modality without any.
      nonzero_share: fraction of the first modality's voxels that are nonzero.
      box_start: first voxel of the bounding box of nonzero voxels.
      box_shape: shape of that box, voxels.
      box_share: fraction of the volume that is in that box.
      label_voxels: label value, as text, -> number of voxels.
      component_shares: label value, as text, or `measurements.FOREGROUND` -> fraction
        of its voxels in its largest and in its two largest connected components.
      foreground_intensities: per modality, statistics over all finite voxels whose
        label is a class other than the background; empty if there are none, None if
        image or labels could not be measured.
      checksum: checksum of the voxels of the image.
      faults: faults of the files.
      warnings: suspicious properties of the files.
    """

    domain: Text
    case: Text
    image_path: Text
    label_path: Text
    shape: tuple[Size, ...] = ()
    spacing_mm: tuple[Length, ...] = ()
    orientation: str = ""
    length_unit: str = ""
    percentiles: tuple[tuple[float, ...], ...] = ()
    nonzero_share: float | None = None
    box_start: tuple[Count, ...] = ()
    box_shape: tuple[Size, ...] = ()
    box_share: float | None = None
    label_voxels: dict[str, Size] = dataclasses.field(default_factory=dict)
    component_shares: dict[str, tuple[float, float]] = dataclasses.field(
        default_factory=dict
    )
    foreground_intensities: tuple[IntensityStatistics, ...] | None = None
    checksum: str = ""
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()


def examine_case(job: SurveyJob) -> CaseFacts:
    """Reads and measures one case; files that cannot be read become faults."""
    facts: dict[str, Any] = {}
    faults: list[Fault] = []
    warnings: list[str] = []
    image = labels = None
    try:
        image = images.load_image(
            job.image_paths,
            spacing_source=job.spacing_source,
            resample_modalities=job.resample_modalities,
            max_memory_gb=job.max_memory_gb,
        )
    except InputError as error:
        faults.append(Fault(IMAGE, job.image_path, str(error)))
    try:
        labels = images.load_labels(
            job.label_path,
            round_labels=job.round_labels,
            max_memory_gb=job.max_memory_gb,
        )
    except InputError as error:
        faults.append(Fault(LABEL, job.label_path, str(error)))
    if image is not None:
        facts |= measurements.measure_image(image)
        faults += [
            Fault(IMAGE, job.image_path, text)
            for text in case_checks.image_faults(
                image, num_modalities=job.num_modalities
            )
        ]
        # An image of constant intensity already has a fault.
        if not faults:
            faults += _contrast_faults(image, _default_crop(facts), job)
        warnings += _image_warnings(image, job)
    if labels is not None:
        facts |= measurements.measure_labels(labels.data, image, job.known_labels)
        faults += _label_faults(labels, image, job)
        warnings += _label_warnings(labels, image)
        _check_crop(image, labels, facts, job, faults, warnings)
    _save_thumbnail(image, labels, job)
    return CaseFacts(
        domain=job.domain,
        case=job.case,
        image_path=job.image_path,
        label_path=job.label_path,
        **facts,
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def _save_thumbnail(
    image: Volume | None, labels: Volume | None, job: SurveyJob
) -> None:
    """Saves a picture of the case, if it is requested and the image can be read."""
    if job.thumbnail is None or image is None:
        return
    picture = thumbnails.make_thumbnail(
        image, labels, job.known_labels, ignore_label=job.ignore_label
    )
    thumbnails.save_thumbnail(job.thumbnail, picture)


def _default_crop(facts: Mapping[str, Any]) -> Box:
    """Returns the crop of a conversion with default settings."""
    return measurements.box_with_margin(
        facts["box_start"], facts["box_shape"], facts["shape"], DEFAULTS.margin_voxels
    )


def _contrast_faults(image: Volume, crop: Box, job: SurveyJob) -> list[Fault]:
    """Returns the fault for which a conversion with default settings would fail."""
    try:
        intensities.require_contrast(
            image.data[(slice(None), *crop)],
            names=[str(index) for index in range(len(image.data))],
            settings=DEFAULTS,
        )
    except InputError as error:
        return [Fault(CONTRAST, job.image_path, str(error))]
    return []


def _image_warnings(image: Volume, job: SurveyJob) -> list[str]:
    warnings = list(image.notes)
    if 1 in image.data.shape[1:]:
        warnings.append(
            f"{job.image_path}: a single slice, shape {image.data.shape[1:]}"
        )
    return warnings


def _label_warnings(labels: Volume, image: Volume | None) -> list[str]:
    warnings = list(labels.notes)
    problem = header_problem(labels.grid)
    # Already reported if the image has the same header.
    if problem and (image is None or problem != header_problem(image.grid)):
        warnings.append(f"{labels.grid.path}: {problem}; using that of the image")
    return warnings


def _label_faults(labels: Volume, image: Volume | None, job: SurveyJob) -> list[Fault]:
    found = case_labels.label_faults(
        labels, image, known=job.known_labels, ignore_label=job.ignore_label
    )
    return [Fault(kind, job.label_path, text) for kind, text in found.items()]


def _check_crop(
    image: Volume | None,
    labels: Volume,
    facts: Mapping[str, Any],
    job: SurveyJob,
    faults: list[Fault],
    warnings: list[str],
) -> None:
    """Adds a fault or a warning if a default conversion crops known foreground."""
    if image is None or any(fault.kind in (IMAGE, GEOMETRY) for fault in faults):
        return
    known = [value for value in job.known_labels if value]
    foreground = np.isin(reorient_to(labels, image.grid), known)
    try:
        note = describe_cropped_foreground(
            foreground, _default_crop(facts), path=job.label_path
        )
    except InputError as error:
        faults.append(Fault(CROPPED_LABEL, job.label_path, error.problem))
    else:
        warnings += [note] if note else []
