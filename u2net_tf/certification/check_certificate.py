"""Verifies a certificate by recomputing its checksums."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from u2net_tf.certification.build import Build, current_build
from u2net_tf.certification.certificate import (
    CERTIFICATE,
    DomainRecord,
    ModelRecord,
    Verdict,
    compare,
    differences,
)
from u2net_tf.certification.measure import measure_model, require_usable
from u2net_tf.config.certificate import CertifyConfig
from u2net_tf.progress import Progress, silent

VERIFIED = "as certified"
NOT_COMPARABLE = "different build: not comparable bit for bit"
# Checksums that depend on the build.
_COMPUTED = ("logits", "label maps")


@dataclasses.dataclass(frozen=True)
class CheckedDomain:
    """The result for a domain of one of the models.

    Attributes:
      model: "before" or "after".
      domain: name of the domain.
      finding: `VERIFIED`, `NOT_COMPARABLE` or a description of the difference.
    """

    model: str
    domain: str
    finding: str


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """The result of `check`.

    Attributes:
      domains: results of all domains of each checked model.
      build_differences: lines that describe how the current build differs from that of
        the certificate.
      same_verdicts: whether the two models, both computed in the current build, yield
        the verdicts of the certificate; None if only one model was checked. In a
        different build, differences of logits and label maps are not compared.
    """

    domains: tuple[CheckedDomain, ...]
    build_differences: tuple[str, ...]
    same_verdicts: bool | None

    @property
    def is_verified(self) -> bool:
        """Whether every checksum matches the certificate."""
        return all(each.finding == VERIFIED for each in self.domains)

    @property
    def is_refuted(self) -> bool:
        """Whether there is a difference that a different build does not explain."""
        allowed = (VERIFIED, NOT_COMPARABLE)
        return self.same_verdicts is False or any(
            each.finding not in allowed for each in self.domains
        )


def check(config: CertifyConfig, *, progress: Progress = silent) -> CheckReport:
    """Recomputes the checksums of a certificate.

    Args:
      config: the settings, with `check`.
      progress: shows the number of processed windows of a scan.

    Raises:
      InputError: if the certificate is damaged or edited, or a model or scan cannot be
        used.
      OSError: if a file cannot be read.
    """
    assert config.check  # The caller ensures this.
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
    build_differences = tuple(_compare_builds(certificate.build, current_build()))
    found = {
        name: measure_model(folder, scans_dir or None, progress=progress)
        for name, folder in folders.items()
    }
    domains: list[CheckedDomain] = []
    for name, record in found.items():
        expected = certified[name] if scans_dir else _without_scans(certified[name])
        domains += _compare(name, expected, record, is_same_build=not build_differences)
    same = None
    if len(found) == 2:
        expected_verdicts = certificate.verdicts
        if not scans_dir:
            expected_verdicts = compare(*map(_without_scans, certified.values()))
        found_verdicts = compare(found["before"], found["after"])
        if build_differences:
            found_verdicts, expected_verdicts = map(
                _independent_of_build, (found_verdicts, expected_verdicts)
            )
        same = found_verdicts == expected_verdicts
    return CheckReport(tuple(domains), build_differences, same)


def _compare(
    model: str, certified: ModelRecord, found: ModelRecord, *, is_same_build: bool
) -> list[CheckedDomain]:
    rows = []
    names = dict.fromkeys([*certified.by_name, *found.by_name])
    for name in names:
        one, other = certified.by_name.get(name), found.by_name.get(name)
        if one is None or other is None:
            finding = "not in the model" if other is None else "not in the certificate"
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
        return "different scans"
    found = differences(one, other)
    if not found:
        return VERIFIED
    if not is_same_build and set(found) <= set(_COMPUTED):
        return NOT_COMPARABLE
    return f"different {', '.join(found)}"


def _independent_of_build(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Returns the verdicts without differences of checksums that depend on the build.

    Two networks may predict the same label map in one build and not in another.
    """
    return tuple(
        dataclasses.replace(
            verdict,
            differences=tuple(
                name for name in verdict.differences if name not in _COMPUTED
            ),
        )
        for verdict in verdicts
    )


def _without_scans(record: ModelRecord) -> ModelRecord:
    domains = [dataclasses.replace(domain, scans=()) for domain in record.domains]
    return dataclasses.replace(record, domains=tuple(domains))


def _compare_builds(certified: Build, current: Build) -> list[str]:
    """Returns a line per difference, such as "tensorflow 2.21.0, now 2.22.0"."""
    one, other = ({**dataclasses.asdict(build)} for build in (certified, current))
    libraries = one.pop("libraries"), other.pop("libraries")
    one, other = ({**libraries[0], **one}, {**libraries[1], **other})
    return [
        f"{name} {one.get(name)}, now {other.get(name)}"
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]
