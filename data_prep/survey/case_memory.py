"""Estimates the memory that a case takes while it is examined."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.survey.examine_case import SurveyJob
from u2net_tf import machine
from u2net_tf.volumes.memory import fitting_workers
from u2net_tf.volumes.preparation_memory import image_size, reading_bytes

_FLOAT = 4
# Bytes per voxel while a label map is measured next to the image; most of them while
# the voxels of the classes are found, or counted by component, in int64. At most 29.0
# were measured, for classes that fill a label map with values above those of int32.
_BYTES_MEASURED = 31


def examination_bytes(job: SurveyJob) -> int:
    """Estimates the bytes of a case: an upper bound, from headers alone.

    The label map counts as large as the image, as it should be. If neither header can
    be read, the case counts as 0: examining it finds the reason.
    """
    limit = job.max_memory_gb
    size = image_size(
        job.image_paths,
        resample_modalities=job.resample_modalities,
        max_memory_gb=limit,
    ) or image_size([job.label_path], max_memory_gb=limit)
    if size is None:
        return 0
    measured = _FLOAT * size.num_values + _BYTES_MEASURED * size.num_voxels
    return max(reading_bytes(size.num_values), measured)


def workers_for(
    jobs: Sequence[SurveyJob], num_workers: int | None, max_memory_gb: float | None
) -> int:
    """Returns the number of worker processes for cases.

    Args:
      jobs: the cases.
      num_workers: maximum number; None for one per core.
      max_memory_gb: see `memory.fitting_workers`.
    """
    return fitting_workers(
        num_workers or machine.num_cores(),
        [examination_bytes(job) for job in jobs],
        max_memory_gb,
        activity="examining cases",
    )
