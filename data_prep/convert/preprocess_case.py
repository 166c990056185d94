"""One case in a worker process: preprocessed, and left as a part file.

Parts are what an interrupted conversion finds again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import zipfile

import numpy as np

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.manifest import fingerprint
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import crop_and_resample, msd

# Protocol buffers, which records are, end at 2 GiB; some of it is for the other fields.
LARGEST_RECORD_BYTES = 2**31 - 2**20


@dataclasses.dataclass(frozen=True)
class Task:
    """One case to preprocess.

    Attributes:
      domain: the case's domain.
      case: where its files lie.
      group: group of the plan that the case is in: a fold or a split.
      image_dtype: type that the image is stored in.
      stamps: of the raw files, as the conversion found them at its start.
      part: file to write.
    """

    domain: Domain
    case: msd.Case
    group: str
    image_dtype: str
    stamps: files.Stamps
    part: pathlib.Path

    @property
    def key(self) -> str:
        """Changes whenever the part would."""
        paths = [str(self.case.image_path), str(self.case.label_path)]
        parts = [fingerprint(self.domain), self.image_dtype, paths, self.stamps]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Part:
    """A preprocessed case.

    Attributes:
      image: (z, y, x, C) in the task's type.
      labels: (z, y, x) uint8 class indices.
      origin: fields of the manifest's `CaseEntry` that tell where the case is from.
    """

    image: np.ndarray
    labels: np.ndarray
    origin: dict


def preprocess_case(task: Task) -> InputError | None:
    """Writes the part of one case, unless it is there already.

    Returns:
      What is wrong with the case, naming the file; None if nothing is.
    """
    if _is_done(task):
        return None
    try:
        _write_part(task)
    except InputError as error:
        return error
    return None


def load_part(path: pathlib.Path) -> Part:
    """Reads what `preprocess_case` wrote."""
    with np.load(path) as part:
        return Part(part["image"], part["labels"], json.loads(str(part["origin"])))


def _is_done(task: Task) -> bool:
    if not task.part.is_file():
        return False
    try:
        # NumPy does not close a damaged file that it has opened itself.
        with task.part.open("rb") as file, np.load(file) as part:
            return str(part["key"]) == task.key
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        # Left by a machine that went down; it is made again.
        return False


def _write_part(task: Task) -> None:
    for path in (task.case.image_path, task.case.label_path):
        if not path.is_file():
            raise InputError(path, expected="a file", received="no such file")
    image = case_files.read_image([task.case.image_path], task.domain)
    labels = case_files.read_labels(task.case.label_path, image, task.domain)
    prepared, placement = case_files.preprocess_case(image, task.domain)
    stored = prepared.astype(task.image_dtype, copy=False)
    size = stored.nbytes + prepared[..., 0].size
    if size > LARGEST_RECORD_BYTES:
        raise InputError(
            task.case.image_path,
            expected=f"at most {LARGEST_RECORD_BYTES} bytes after preprocessing",
            received=f"{size} (shape {prepared.shape} as {task.image_dtype})",
            hint="Use `image_dtype`=float16 or a coarser spacing_mm in the plan",
        )
    origin = {
        "files": [str(task.case.image_path), str(task.case.label_path)],
        "raw_shape": placement.raw_shape,
        "raw_spacing_mm": image.spacing_mm,
        "raw_orientation": image.grid.axis_codes,
        "raw_affine": image.grid.affine.tolist(),
        "crop_start": placement.crop_start,
        "crop_shape": placement.crop_shape,
        "shape": placement.shape,
        "spacing_mm": task.domain.spacing_mm,
    }
    with files.written_whole(task.part) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            key=task.key,
            origin=json.dumps(origin),
            image=stored,
            labels=crop_and_resample.preprocess_labels(labels, placement),
        )
