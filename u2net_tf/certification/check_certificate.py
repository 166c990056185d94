"""Verifies a certificate: computes its checksums again and compares them."""

from __future__ import annotations

import dataclasses
import pathlib

from u2net_tf.certification.build import Build, current_build
from u2net_tf.certification.certificate import (
    CERTIFICATE,
    DomainRecord,
    ModelRecord,
    compare,
    differences,
)
from u2net_tf.certification.measure import measure_model, require_usable
from u2net_tf.config.certificate import CertifyConfig
from u2net_tf.progress import Progress, silent

VERIFIED = "as certified"
NOT_COMPARABLE = "another build: not comparable bit by bit"
# These depend on the build; the others are the same in each.
_COMPUTED = ("logits", "label maps")


@dataclasses.dataclass(frozen=True)
class CheckedDomain:
    """What was found of a domain of one of the models.

    Attributes:
      model: "before" or "after".
      domain: its name.
      finding: `VERIFIED`, `NOT_COMPARABLE` or what is otherwise.
    """

    model: str
    domain: str
    finding: str


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes:
      domains: of each model that was looked at, one after the other.
      build: in what the current build differs from the one that certified: lines.
      same_verdicts: whether the models, both computed in the current build, give the
        verdicts of the certificate; None if only one was looked at.
    """

    domains: tuple[CheckedDomain, ...]
    build: tuple[str, ...]
    same_verdicts: bool | None

    @property
    def is_verified(self) -> bool:
        """Whether every checksum is as certified."""
        return all(each.finding == VERIFIED for each in self.domains)

    @property
    def is_refuted(self) -> bool:
        """Whether something differs that another build does not explain."""
        allowed = (VERIFIED, NOT_COMPARABLE)
        return self.same_verdicts is False or any(
            each.finding not in allowed for each in self.domains
        )


def check(config: CertifyConfig, *, progress: Progress = silent) -> CheckReport:
    """Computes the checksums of a certificate again.

    Args:
      config: the settings, with `check`.
      progress: shows how many windows of a scan are done.

    Raises:
      InputError: if the certificate is damaged or was edited, or a model or scan cannot
        be used.
      OSError: if a file cannot be read.
    """
    assert config.check  # as the caller makes sure
    certificate = CERTIFICATE.load(pathlib.Path(config.check))
    given = {"before": config.before, "after": config.after}
    certified = {"before": certificate.before, "after": certificate.after}
    folders = {name: folder for name, folder in given.items() if folder} or {
        name: record.model_dir for name, record in certified.items()
    }
    scans_dir = config.scans_dir
    if scans_dir is None:
        scans_dir = certificate.scans_dir
    require_usable(folders.values(), scans_dir or None)
    build = tuple(_build_differences(certificate.build, current_build()))
    found = {
        name: measure_model(folder, scans_dir or None, progress=progress)
        for name, folder in folders.items()
    }
    domains: list[CheckedDomain] = []
    for name, record in found.items():
        expected = certified[name] if scans_dir else _without_scans(certified[name])
        domains += _compare(name, expected, record, is_same_build=not build)
    same = None
    if len(found) == 2:
        expected_verdicts = certificate.verdicts
        if not scans_dir:
            expected_verdicts = compare(*map(_without_scans, certified.values()))
        same = compare(found["before"], found["after"]) == expected_verdicts
    return CheckReport(tuple(domains), build, same)


def _compare(
    model: str, certified: ModelRecord, found: ModelRecord, *, is_same_build: bool
) -> list[CheckedDomain]:
    rows = []
    names = dict.fromkeys([*certified.by_name, *found.by_name])
    for name in names:
        one, other = certified.by_name.get(name), found.by_name.get(name)
        if one is None or other is None:
            finding = "no such domain" if other is None else "not in the certificate"
        else:
            finding = _finding(one, other, is_same_build)
        rows.append(CheckedDomain(model, name, finding))
    return rows


def _finding(one: DomainRecord, other: DomainRecord, is_same_build: bool) -> str:
    scans, other_scans = (
        {scan.name: scan.image_sha256 for scan in record.scans}
        for record in (one, other)
    )
    if scans != other_scans:
        return "other scans"
    found = differences(one, other)
    if not found:
        return VERIFIED
    if not is_same_build and set(found) <= set(_COMPUTED):
        return NOT_COMPARABLE
    return f"other {', '.join(found)}"


def _without_scans(record: ModelRecord) -> ModelRecord:
    domains = [dataclasses.replace(domain, scans=()) for domain in record.domains]
    return dataclasses.replace(record, domains=tuple(domains))


def _build_differences(certified: Build, current: Build) -> list[str]:
    """What differs, a line each: "tensorflow 2.21.0, now 2.22.0"."""
    one, other = ({**dataclasses.asdict(build)} for build in (certified, current))
    libraries = one.pop("libraries"), other.pop("libraries")
    one, other = ({**libraries[0], **one}, {**libraries[1], **other})
    return [
        f"{name} {one.get(name)}, now {other.get(name)}"
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]
