"""The manifest of a domain's shards: `manifest.json`, written last by `convert`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

from u2net_tf.domains import LATER_PREPROCESSING, Domain, Plan, Preprocessing
from u2net_tf.errors import InputError
from u2net_tf.files import Stamps
from u2net_tf.plan_files import load_plan

MANIFEST_FORMAT = 1
IMAGE_DTYPES = ("float16", "float32")
COMPRESSIONS = ("none", "gzip")


@dataclasses.dataclass(frozen=True)
class CaseEntry:
    """What the manifest says of one case. Triples are (z, y, x).

    Attributes:
      case: name.
      split: "train", "validation" or "test".
      shard: file name of the shard.
      files: raw image and label file.
      raw_shape: of the raw volume, voxels.
      raw_spacing_mm: of the raw volume.
      raw_orientation: axis codes on disk, for example "LPS".
      raw_affine: (4, 4) on disk.
      crop_start: first raw voxel of the crop.
      crop_shape: shape of the crop, raw voxels.
      shape: shape of the preprocessed volume, voxels.
      spacing_mm: spacing of the preprocessed volume.
      label_voxels: preprocessed voxels per class, background first.
      num_bytes: length of the serialized record.
      checksum: SHA-256 of the serialized record.
    """

    case: str
    split: str
    shard: str
    files: list[str]
    raw_shape: list[int]
    raw_spacing_mm: list[float]
    raw_orientation: str
    raw_affine: list[list[float]]
    crop_start: list[int]
    crop_shape: list[int]
    shape: list[int]
    spacing_mm: list[float]
    label_voxels: list[int]
    num_bytes: int
    checksum: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The shards of one domain.

    Attributes:
      domain: name of the domain.
      fingerprint: of the parts of the plan that the shards depend on.
      image_dtype: "float16" or "float32".
      compression: "none" or "gzip".
      cases: in the order in which they lie in the shards.
      skipped: case -> reason, for `--on_bad_case=skip`.
      shard_size_mb: size at which shards were closed; None if not known.
      raw_stamps: case, skipped or not, -> size and time of last change (ns) of its
        image and label file when they were read, None for a missing file; empty if
        not known.
    """

    domain: str
    fingerprint: str
    image_dtype: str
    compression: str
    cases: tuple[CaseEntry, ...]
    skipped: dict[str, str]
    shard_size_mb: float | None = None
    raw_stamps: dict[str, Stamps] = dataclasses.field(default_factory=dict)

    def entries(self, split: str) -> list[CaseEntry]:
        """The cases of one split."""
        return [entry for entry in self.cases if entry.split == split]

    def shards(self, split: str) -> list[str]:
        """File names of one split's shards."""
        return sorted({entry.shard for entry in self.entries(split)})


def fingerprint(domain: Domain) -> str:
    """SHA-256 of everything in the plan that changes a domain's shards.

    Patch size, pools, batch size and the clean-up after prediction are not part of
    it: they can be edited without converting again.
    """
    preprocessing = dataclasses.asdict(domain.preprocessing)
    # Spacing, percentiles and floor as floats: 1 and 1.0 are the same plan.
    preprocessing["clip_percentiles"] = [
        float(value) for value in domain.preprocessing.clip_percentiles
    ]
    for name in LATER_PREPROCESSING:
        # Shards from before such a field are what its default makes.
        if preprocessing[name] == getattr(Preprocessing(), name):
            del preprocessing[name]
    if "intensity_floor" in preprocessing:
        preprocessing["intensity_floor"] = float(preprocessing["intensity_floor"])
    parts = {
        "name": domain.name,
        "modalities": domain.modalities,
        "values": [label.values for label in domain.labels],
        "spacing_mm": [float(value) for value in domain.spacing_mm],
        "preprocessing": preprocessing,
        "splits": [domain.train, domain.validation, domain.test],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def manifest_path(data_dir: str | os.PathLike, name: str) -> pathlib.Path:
    """Where the manifest of a domain lies."""
    return pathlib.Path(data_dir) / name / "manifest.json"


def to_json(manifest: Manifest) -> str:
    """The manifest as text, a line per case."""
    content = {"format": MANIFEST_FORMAT, **dataclasses.asdict(manifest)}
    rows = [f" {_text(key)}: {_a_line_each(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def load_manifest(data_dir: str | os.PathLike, name: str) -> Manifest:
    """Reads the manifest of a domain.

    Raises:
      InputError: if it is missing or cannot be used.
    """
    path = manifest_path(data_dir, name)
    if not path.is_file():
        raise InputError(
            f"{path}: expected a manifest as `python -m data_prep.convert` writes it, "
            "found no such file"
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = content.pop("format")
        if found != MANIFEST_FORMAT:
            raise InputError(
                f"{path}: expected format {MANIFEST_FORMAT}. Received: {found!r}"
            )
        cases = tuple(CaseEntry(**entry) for entry in content.pop("cases"))
        manifest = Manifest(cases=cases, **content)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected a manifest. Received: {type(error).__name__}: {error}"
        ) from error
    for field, known in (
        ("domain", (name,)),
        ("image_dtype", IMAGE_DTYPES),
        ("compression", COMPRESSIONS),
    ):
        found = getattr(manifest, field)
        if found not in known:
            raise InputError(
                f"{path}: {field}: expected {' or '.join(known)}. Received: {found!r}"
            )
    return manifest


def load_converted(
    data_dir: str | os.PathLike, names: tuple[str, ...] | list[str] = ()
) -> tuple[Plan, list[Manifest]]:
    """Reads the plan and the manifests of a folder that `convert` wrote.

    Args:
      data_dir: the folder.
      names: the domains wanted, in this order; all where none is named.

    Returns:
      The plan of these domains and their manifests, in the same order.

    Raises:
      InputError: if something is missing, or shards were made with another plan.
    """
    path = pathlib.Path(data_dir) / "plan.json"
    plan = load_plan(path).select(names)
    manifests = [load_manifest(data_dir, name) for name in plan.names]
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        if manifest.fingerprint != fingerprint(domain):
            raise InputError(
                f"{manifest_path(data_dir, domain.name)}: expected shards made with "
                f"{path}, found shards of another plan; run `python -m "
                "data_prep.convert --overwrite` again"
            )
    return plan, manifests


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _a_line_each(value: Any) -> str:
    if isinstance(value, dict):
        items = [f"{_text(key)}: {_text(item)}" for key, item in value.items()]
        opened, closed = "{}"
    elif isinstance(value, list | tuple):
        items = [_text(item) for item in value]
        opened, closed = "[]"
    else:
        return _text(value)
    if not items:
        return opened + closed
    return f"{opened}\n  " + ",\n  ".join(items) + f"\n {closed}"
