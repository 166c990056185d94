"""The format of a certificate, and the verdicts derived from its checksums."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from u2net_tf import schema
from u2net_tf.certification.build import Build
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.schema import Sha256, Text

Change = Literal["identical", "changed", "added", "removed"]


@schema.model
class ScanRecord:
    """A scan and its prediction.

    Attributes:
      name: name of the scan.
      image_sha256: checksum of the unprocessed voxels and the affine.
      label_map_sha256: checksum of the predicted label map after postprocessing.
    """

    name: Text
    image_sha256: Sha256
    label_map_sha256: Sha256


@schema.model
class DomainRecord:
    """A domain of a model.

    Attributes:
      name: name of the domain.
      checkpoint: path of the checkpoint, relative to the model's folder.
      trunk_sha256: `checksums.of_trunk`.
      variables_sha256: `checksums.of_domain_variables`.
      settings_sha256: see `measure.settings_checksum`.
      logits_sha256: name of a probe -> checksum of patch and logits; see `probes`.
      scans: the scans and their predictions.
    """

    name: Text
    checkpoint: Text
    trunk_sha256: Sha256
    variables_sha256: Sha256
    settings_sha256: Sha256
    logits_sha256: Annotated[dict[str, Sha256], Field(min_length=1)]
    scans: tuple[ScanRecord, ...]

    def __post_init__(self) -> None:
        names = [scan.name for scan in self.scans]
        schema.require_distinct("scans", names, "each scan once")


@schema.model
class ModelRecord:
    """A model, or the independent models in a folder.

    Attributes:
      model_dir: folder of the model, as passed by the user.
      domains: records of its domains, in the model's order.
    """

    model_dir: Text
    domains: Annotated[tuple[DomainRecord, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        names = [domain.name for domain in self.domains]
        schema.require_distinct("domains", names, "each domain once")

    @property
    def by_name(self) -> dict[str, DomainRecord]:
        """Name -> domain."""
        return {domain.name: domain for domain in self.domains}


@schema.model
class Verdict:
    """The effect of a change on a domain.

    Attributes:
      domain: name of the domain.
      change: "identical", "changed", "added" or "removed".
      differences: the checksums of a changed domain that differ: "trunk", "variables",
        "settings", "logits", "label maps".
    """

    domain: Text
    change: Change
    differences: tuple[Text, ...] = ()


@schema.model
class Certificate:
    """The effect of a model change on each domain.

    Attributes:
      created: date and time, UTC.
      build: environment in which logits and label maps were computed.
      scans_dir: folder of the scans, as passed by the user; None without scans.
      before: the model before the change.
      after: the model after the change.
      verdicts: one per domain of either model, those of `before` first.
    """

    created: Text
    build: Build
    scans_dir: Text | None
    before: ModelRecord
    after: ModelRecord
    verdicts: tuple[Verdict, ...]

    def __post_init__(self) -> None:
        expected = compare(self.before, self.after)
        if self.verdicts != expected:
            differing = [v for v in self.verdicts if v not in expected]
            raise InputError(
                "verdicts",
                expected="the verdicts derived from the checksums",
                received=", ".join(f"{v.domain} {v.change}" for v in differing)
                or "missing or reordered ones",
                hint="The file was edited",
            )


CERTIFICATE = FileFormat(
    name="a certificate",
    made_by="python -m u2net_tf.certify",
    kind=Certificate,
    oldest=1,
    upgrades=(),
)


def to_json(certificate: Certificate) -> str:
    """Returns the certificate as JSON."""
    return json.dumps(CERTIFICATE.to_dict(certificate), indent=1) + "\n"


def compare(before: ModelRecord, after: ModelRecord) -> tuple[Verdict, ...]:
    """Returns the verdicts on the domains of two models.

    Args:
      before: the model before the change.
      after: the model after the change, computed in the same build.
    """
    old, new = before.by_name, after.by_name
    verdicts = []
    for name, domain in old.items():
        if name not in new:
            verdicts.append(Verdict(name, "removed"))
            continue
        found = tuple(differences(domain, new[name]))
        verdicts.append(Verdict(name, "changed" if found else "identical", found))
    verdicts += [Verdict(name, "added") for name in new if name not in old]
    return tuple(verdicts)


def differences(one: DomainRecord, other: DomainRecord) -> list[str]:
    """Returns the names of the checksums that differ between two records."""
    maps, other_maps = (
        {scan.name: scan.label_map_sha256 for scan in record.scans}
        for record in (one, other)
    )
    pairs = {
        "trunk": (one.trunk_sha256, other.trunk_sha256),
        "variables": (one.variables_sha256, other.variables_sha256),
        "settings": (one.settings_sha256, other.settings_sha256),
        "logits": (one.logits_sha256, other.logits_sha256),
        "label maps": (maps, other_maps),
    }
    return [name for name, (first, second) in pairs.items() if first != second]
