"""Examines one case of the survey: measurements, faults and warnings."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from u2net_tf import files, schema, work_log
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Preprocessing, SpacingSource
from u2net_tf.schema import Count, Length, Size, Text
from u2net_tf.visualization import thumbnails
from u2net_tf.volumes import case as case_checks
from u2net_tf.volumes import components, crop_and_resample, images, intensities
from u2net_tf.volumes.grid import Volume, header_problem

PERCENTILES = (0, 2, 50, 98, 100)
# The plan's default preprocessing.
DEFAULTS = Preprocessing()

# Kinds of fault. See `is_usable`.
IMAGE, LABEL, SAME_IMAGE = "image", "label", "same image"
CONTRAST = "contrast"
GEOMETRY = case_checks.GEOMETRY
UNKNOWN_LABEL, EMPTY_LABEL = case_checks.UNKNOWN_LABEL, case_checks.EMPTY_LABEL
SAME_NAME = "same name"

# Key of all foreground together in `CaseFacts.component_shares`.
FOREGROUND = "foreground"


@schema.model
class Fault:
    """One fault of one file.

    Attributes:
      kind: one of the kinds above.
      file: the file.
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
      domain: its domain.
      case: its name.
      image_paths: the image, one file or one per modality.
      label_path: the label map.
      num_modalities: how many channels the image should have.
      known_labels: the values that the label map may hold.
      spacing_source: "pixdim" or "affine".
      round_labels: whether label values that are nearly whole are rounded.
      resample_modalities: whether files on another grid than the first are resampled
        to it, which is a warning; otherwise they are a fault.
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
    round_labels: bool = False
    resample_modalities: bool = False
    max_memory_gb: float | None = None
    thumbnail: str | None = None

    @property
    def key(self) -> str:
        """Key of what is found, whether drawn or not; see `work_log.work_key`."""
        return work_log.work_key(
            dataclasses.astuple(dataclasses.replace(self, thumbnail=None)),
            files.file_signatures([*self.image_paths, self.label_path]),
        )

    @property
    def image_path(self) -> str:
        """The image, or its first file."""
        return self.image_paths[0]


# Stands in two files, the survey and the log of an unfinished one: a change here raises
# both formats, `survey_file.SURVEY` and `survey_domains.EXAMINED_CASE`.
@schema.model
class CaseFacts:
    """One row of the survey. Triples are z, y, x; empty where a file is unreadable.

    Attributes:
      domain: its domain.
      case: its name.
      image_path: the image; its first file where there is one per modality.
      label_path: the label map.
      shape: voxels.
      spacing_mm: voxel size, mm, from the survey's spacing source.
      orientation: of the axes on disk, for example "RAS".
      length_unit: of the voxel sizes in the file, "mm", "µm" or "m"; "" if it names
        none.
      percentiles: per modality, the intensities at `PERCENTILES`, finite voxels only.
      nonzero_share: share of the first modality's voxels that are not zero.
      box_start: first voxel of the box of the non-zero voxels.
      box_shape: shape of that box, voxels.
      box_share: share of the volume that the box takes.
      label_voxels: label value, as text, -> voxels.
      component_shares: label value, as text, or `FOREGROUND` -> share of its voxels
        in its largest and in its two largest connected components.
      checksum: of the voxels of the image.
      faults: what is wrong, by file.
      warnings: what is suspicious, by file.
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
    checksum: str = ""
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()


def examine_case(job: SurveyJob) -> CaseFacts:
    """Reads one case and measures it; what cannot be read becomes a fault."""
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
        facts |= _measure_image(image)
        faults += [
            Fault(IMAGE, job.image_path, text)
            for text in case_checks.image_faults(
                image, num_modalities=job.num_modalities
            )
        ]
        # What has no contrast at all is among the faults of the image.
        if not faults:
            faults += _contrast_faults(image, job)
        warnings += _image_warnings(image, job)
    if labels is not None:
        facts |= _measure_labels(labels.data, job.known_labels)
        faults += _label_faults(labels, image, job)
        warnings += _label_warnings(labels, image)
    if job.thumbnail is not None and image is not None:
        picture = thumbnails.make_thumbnail(image, labels, job.known_labels)
        thumbnails.save_thumbnail(job.thumbnail, picture)
    return CaseFacts(
        domain=job.domain,
        case=job.case,
        image_path=job.image_path,
        label_path=job.label_path,
        **facts,
        faults=tuple(faults),
        warnings=tuple(warnings),
    )


def _measure_image(image: Volume) -> dict[str, Any]:
    first = image.data[0]
    facts = {
        "shape": first.shape,
        "spacing_mm": tuple(round(size, 6) or size for size in image.spacing_mm),
        "orientation": image.grid.axis_codes,
        "length_unit": image.grid.length_unit,
        "percentiles": tuple(_percentiles(channel) for channel in image.data),
        "nonzero_share": float(np.count_nonzero(first) / first.size),
        "checksum": hashlib.blake2b(image.data.data, digest_size=16).hexdigest(),
        "box_share": 0.0,
    }
    if first.any():
        start, shape = crop_and_resample.nonzero_box(first, margin_voxels=0)
        facts |= {"box_start": start, "box_shape": shape}
        facts["box_share"] = float(np.prod(shape, dtype=float) / first.size)
    return facts


def _contrast_faults(image: Volume, job: SurveyJob) -> list[Fault]:
    """What a conversion with the default settings would refuse."""
    start, shape = crop_and_resample.nonzero_box(
        image.data[0], margin_voxels=DEFAULTS.margin_voxels
    )
    z, y, x = (slice(a, a + b) for a, b in zip(start, shape, strict=True))
    try:
        intensities.require_contrast(
            image.data[:, z, y, x],
            names=[str(index) for index in range(len(image.data))],
            percentiles=DEFAULTS.clip_percentiles,
        )
    except InputError as error:
        return [Fault(CONTRAST, job.image_path, str(error))]
    return []


def _percentiles(channel: np.ndarray) -> tuple[float, ...]:
    finite = channel[np.isfinite(channel)]
    if not finite.size:
        return ()
    return tuple(float(value) for value in np.percentile(finite, PERCENTILES))


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
    # Where the image has the same header, it was said.
    if problem and (image is None or problem != header_problem(image.grid)):
        warnings.append(f"{labels.grid.path}: {problem}; taking the image's")
    return warnings


def _measure_labels(labels: np.ndarray, known: tuple[int, ...]) -> dict[str, Any]:
    counts = case_checks.count_values(labels)
    voxels = {str(value): count for value, count in counts.items()}
    shares = {}
    for value in known:
        if value and str(value) in voxels:
            shares[str(value)] = _largest_shares(labels == value)
    if len(shares) == 1:
        shares[FOREGROUND] = next(iter(shares.values()))
    elif shares:
        shares[FOREGROUND] = _largest_shares(np.isin(labels, [v for v in known if v]))
    return {"label_voxels": voxels, "component_shares": shares}


def _largest_shares(mask: np.ndarray) -> tuple[float, float]:
    sizes = components.component_sizes(mask)
    total = float(sizes.sum())
    return float(sizes[:1].sum() / total), float(sizes[:2].sum() / total)


def _label_faults(labels: Volume, image: Volume | None, job: SurveyJob) -> list[Fault]:
    found = case_checks.label_faults(labels, image, known=job.known_labels)
    return [Fault(kind, job.label_path, text) for kind, text in found.items()]


def is_usable(
    facts: CaseFacts,
    *,
    unknown_labels: str,
    clip_percentiles: tuple[float, float] = DEFAULTS.clip_percentiles,
) -> bool:
    """Whether a case can be trained on in spite of its faults.

    Args:
      facts: the case.
      clip_percentiles: that intensities are clipped to. The survey looked at the
        default ones, and with others the conversion decides.
      unknown_labels: "background" if label values that no class lists are taken as
        background, "fail" if not.
    """
    tolerated = {EMPTY_LABEL, SAME_NAME}
    if unknown_labels == "background":
        tolerated.add(UNKNOWN_LABEL)
    if clip_percentiles != DEFAULTS.clip_percentiles:
        tolerated.add(CONTRAST)
    return all(fault.kind in tolerated for fault in facts.faults)
