"""The manifest of a domain's shards, `manifest.json`, which `convert` writes last."""

from __future__ import annotations

import collections
import json
import math
import os
import pathlib
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from u2net_tf import migrations, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.files import FileSignature
from u2net_tf.plan.domains import SPLITS, Domain, Plan
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.plan.plan_hash import plan_hashes
from u2net_tf.schema import Count, Length, Size, Text

ImageDtype = Literal["float16", "float32"]
Compression = Literal["none", "gzip"]
IMAGE_DTYPES = get_args(ImageDtype)
COMPRESSIONS = get_args(Compression)
# Group of the plan, with which the names of shards begin.
_GROUP = rf"{'|'.join(SPLITS)}|fold[0-9]+"


@schema.model
class CaseEntry:
    """Manifest entry of one case. Triples are (z, y, x).

    Attributes:
      case: name of the case.
      group: group of the case in the plan: a fold or a split.
      shard: file name of the shard.
      files: raw image and label files.
      raw_shape: shape of the raw volume, voxels.
      raw_spacing_mm: spacing of the raw volume.
      raw_orientation: axis codes on disk, for example "LPS".
      raw_affine: affine on disk, (4, 4).
      crop_start: first raw voxel of the crop.
      crop_shape: shape of the crop, raw voxels.
      shape: shape of the preprocessed volume, voxels.
      spacing_mm: spacing of the preprocessed volume.
      label_voxels: preprocessed voxels per class, background first, and those without
        annotation if the domain has an ignore label.
      num_bytes: length of the serialized record.
      checksum: SHA-256 of the serialized record.
    """

    case: Text
    group: Text
    shard: str
    files: list[Text]
    raw_shape: list[Size]
    raw_spacing_mm: list[Length]
    raw_orientation: Text
    raw_affine: list[list[float]]
    crop_start: list[Count]
    crop_shape: list[Size]
    shape: list[Size]
    spacing_mm: list[Length]
    label_voxels: list[Count]
    num_bytes: Size
    checksum: Text


@schema.model
class Manifest:
    """The shards of one domain.

    Attributes:
      domain: name of the domain.
      plan_hash: hash of the settings that the shards depend on; see `plan.plan_hash`.
      image_dtype: "float16" or "float32".
      compression: "none" or "gzip".
      cases: entries of the cases, in the order of the shards.
      skipped: case -> reason, for `--on_bad_case=skip`.
      shard_size_mb: size at which a new shard was started; None if unknown.
      raw_signatures: case, skipped or not -> size and modification time (ns) of its
        image and label files when they were read, None for a missing file; empty if
        unknown.
      resample_modalities: whether modalities in separate files were resampled to the
        grid of the first if their grids differed; None if unknown.
    """

    domain: Text
    plan_hash: Annotated[Text, Field(alias="fingerprint")]
    image_dtype: ImageDtype
    compression: Compression
    cases: tuple[CaseEntry, ...]
    skipped: dict[str, str]
    shard_size_mb: Length | None = None
    raw_signatures: dict[str, list[FileSignature]] = Field(
        default_factory=dict, alias="raw_stamps"
    )
    resample_modalities: bool | None = None

    def __post_init__(self) -> None:
        for entry in self.cases:
            if not re.fullmatch(_GROUP, entry.group):
                raise InputError(
                    f"cases: {entry.case}: group",
                    expected=f"{', '.join(SPLITS)} or fold0, fold1, …",
                    received=repr(entry.group),
                )
            name = rf"{re.escape(entry.group)}-[0-9]{{5}}-of-[0-9]{{5}}\.tfrecord"
            if entry.shard and not re.fullmatch(name, entry.shard):
                raise InputError(
                    f"cases: {entry.case}: shard",
                    expected=f"a shard of the group {entry.group}, such as "
                    f"{entry.group}-00000-of-00001.tfrecord",
                    received=repr(entry.shard),
                )

    def entries(self, cases: Collection[str]) -> list[CaseEntry]:
        """Returns the entries of these cases, in the order of the shards."""
        names = set(cases)
        return [entry for entry in self.cases if entry.case in names]

    def shards(self, cases: Collection[str]) -> list[str]:
        """Returns the file names of the shards that contain exactly these cases.

        Raises:
          InputError: if one of the shards also contains another case.
        """
        requested = set(cases)
        shards = {entry.shard for entry in self.cases if entry.case in requested}
        for entry in self.cases:
            if entry.shard in shards and entry.case not in requested:
                raise InputError(
                    f"{self.domain}/{entry.shard}",
                    expected=f"only cases of one group, such as {min(cases)}",
                    received=f"{entry.case} of a different group",
                    hint="Convert this domain again with the current plan",
                )
        return sorted(shards)

    def differences(self, domain: Domain) -> list[InputError]:
        """Compares the shards with the plan of the domain.

        Returns:
          The differences, as errors with an empty `where`; none if the shards match.
        """
        other_plan = "shards of a different plan"
        if self.plan_hash not in plan_hashes(domain):
            return [InputError("", expected="shards of this plan", received=other_plan)]
        if inconsistency := self._inconsistency(domain):
            return [inconsistency]
        planned = {
            case: f"in {group}"
            for group, cases in domain.groups.items()
            for case in cases
            if case not in self.skipped
        }
        found = {entry.case: f"in {entry.group}" for entry in self.cases}
        counts = collections.Counter(entry.case for entry in self.cases)
        found |= {case: "duplicated" for case, count in counts.items() if count > 1}
        places = {
            case: (planned.get(case, "absent"), found.get(case, "absent"))
            for case in sorted(planned.keys() | found.keys())
        }
        return [
            InputError(
                "",
                expected=f"case {case} {place}, as in the plan",
                received=f"{other_plan}, where it is {other}",
            )
            for case, (place, other) in places.items()
            if place != other
        ]

    def _inconsistency(self, domain: Domain) -> InputError | None:
        """Returns an error for the first entry that cannot belong to the domain."""
        num_indices = domain.num_label_indices
        for entry in self.cases:
            for quantity, expected, received in (
                ("spacing_mm", list(domain.spacing_mm), list(entry.spacing_mm)),
                ("dimensions", 3, len(entry.shape)),
                ("number of classes", num_indices, len(entry.label_voxels)),
                ("voxels", math.prod(entry.shape), sum(entry.label_voxels)),
            ):
                if expected != received:
                    return InputError(
                        "",
                        expected=f"case {entry.case} with {quantity} {expected}",
                        received=received,
                    )
        return None

    def check_plan(self, domain: Domain) -> None:
        """Raises the first of `differences`, if there are any."""
        for difference in self.differences(domain):
            raise difference


MANIFEST = FileFormat(
    name="a manifest",
    made_by="python -m data_prep.convert",
    kind=Manifest,
    oldest=1,
    upgrades=(migrations.manifest, migrations.manifest_with_resampling),
)


def manifest_path(data_dir: str | os.PathLike, name: str) -> pathlib.Path:
    """Returns the path of a domain's manifest."""
    return pathlib.Path(data_dir) / name / "manifest.json"


def to_json(manifest: Manifest) -> str:
    """Returns the manifest as JSON with a line per case."""
    fields = MANIFEST.to_dict(manifest)
    rows = [
        f" {_to_json(key)}: {_one_item_per_line(value)}"
        for key, value in fields.items()
    ]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def load_manifest(data_dir: str | os.PathLike, name: str) -> Manifest:
    """Reads the manifest of a domain.

    Raises:
      InputError: if it is missing or invalid.
    """
    path = manifest_path(data_dir, name)
    manifest = MANIFEST.load(path)
    if manifest.domain != name:
        raise InputError(f"{path}: domain", expected=name, received=manifest.domain)
    return manifest


def load_converted(
    data_dir: str | os.PathLike,
    names: tuple[str, ...] | list[str] = (),
    *,
    check_plan: bool = True,
) -> tuple[Plan, list[Manifest]]:
    """Reads the plan and the manifests of a folder that `convert` wrote.

    Args:
      data_dir: the folder.
      names: names of the domains to read, in this order; all if empty.
      check_plan: whether to check that the shards match the plan.

    Returns:
      The plan of these domains and their manifests, in the same order.

    Raises:
      InputError: if a file is missing, or shards were made with a different plan.
    """
    path = pathlib.Path(data_dir) / "plan.json"
    plan = load_plan(path).select(names)
    manifests = [load_manifest(data_dir, name) for name in plan.names]
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        try:
            if check_plan:
                manifest.check_plan(domain)
        except InputError as error:
            raise InputError(
                manifest_path(data_dir, domain.name),
                expected=f"{error.expected} ({path})",
                received=error.received,
                hint="Run `python -m data_prep.convert --overwrite` again",
            ) from None
    return plan, manifests


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _one_item_per_line(value: Any) -> str:
    if isinstance(value, dict):
        items = [f"{_to_json(key)}: {_to_json(item)}" for key, item in value.items()]
        opened, closed = "{}"
    elif isinstance(value, list | tuple):
        items = [_to_json(item) for item in value]
        opened, closed = "[]"
    else:
        return _to_json(value)
    if not items:
        return opened + closed
    return f"{opened}\n  " + ",\n  ".join(items) + f"\n {closed}"
